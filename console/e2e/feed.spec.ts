import { card, expect, test, untilLive } from "./test";

test("one posts, the other's home shows it without a reload, and its deletion too", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  const adas = await open(ada);
  const bobs = await open(bob);
  await untilLive(bobs);

  await adas.getByRole("textbox", { name: "New post" }).fill("Hello from the other browser");
  await adas.getByRole("button", { name: "Post", exact: true }).click();
  await expect(card(adas, "Hello from the other browser")).toHaveCount(1);
  await expect(card(bobs, "Hello from the other browser")).toHaveCount(1);

  await card(adas, "Hello from the other browser").getByRole("button", { name: "More" }).click();
  await adas.getByRole("menuitem", { name: "Delete" }).click();
  await adas.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(card(adas, "Hello from the other browser")).toHaveCount(0);
  await expect(card(bobs, "Hello from the other browser")).toHaveCount(0);
});

test("who reads further down is told of new posts and not pushed away", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  for (let index = 0; index < 14; index += 1) await ada.post(`Earlier post ${index}`);
  const page = await open(bob);
  await untilLive(page);
  await expect(card(page, "Earlier post 13")).toBeVisible();
  await page.mouse.wheel(0, 700);
  await expect.poll(() => page.evaluate(() => window.scrollY)).toBeGreaterThan(300);
  const before = await page.evaluate(() => window.scrollY);

  await ada.post("Later post one");
  await ada.post("Later post two");
  const pill = page.getByRole("button", { name: "2 new posts" });
  await expect(pill).toBeVisible();
  await expect(card(page, "Later post")).toHaveCount(0);
  expect(await page.evaluate(() => window.scrollY)).toBe(before);
  await pill.click();
  await expect(card(page, "Later post")).toHaveCount(2);
  await expect.poll(() => page.evaluate(() => window.scrollY)).toBe(0);
});

for (const [transport, missing] of [
  ["server-sent events", ["WebSocket"]],
  ["long polling", ["WebSocket", "EventSource"]],
] as const) {
  test(`without ${missing.join(" and ")}, new posts come by ${transport}`, async ({ browser, server, person }) => {
    const ada = await person("Ada");
    const bob = await person("Bob");
    await bob.follow(ada);
    const context = await browser.newContext({ baseURL: server.url, viewport: { width: 1280, height: 860 } });
    await context.addInitScript((names) => {
      for (const name of names) Reflect.deleteProperty(window, name);
    }, [...missing]);
    const page = await context.newPage();
    await page.goto("/signin");
    await page.getByLabel("Handle").fill(bob.handle);
    await page.getByLabel("Password", { exact: true }).fill(bob.password);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await expect(page.getByTitle(`Connected by ${transport}`)).toBeVisible();
    await ada.post(`Sent to those on ${transport}`);
    await expect(card(page, `Sent to those on ${transport}`)).toHaveCount(1);
    await context.close();
  });
}

test("a like counts once: double clicks, two tabs and a reload included", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  const { id } = await ada.post("Like me once");
  const likes = async () => (await ada.call<{ counts: { likes: number } }>("GET", `/v1/feed/posts/${id}`)).counts.likes;

  const first = await open(bob);
  const second = await first.context().newPage();
  await second.goto("/");
  const like = (page: typeof first) => card(page, "Like me once").getByRole("button", { name: /^Like/ });
  await expect(like(second)).toHaveAttribute("aria-pressed", "false");

  await like(first).dblclick();
  await expect(like(first)).toHaveAttribute("aria-pressed", "true");
  await expect(like(first)).toHaveText("1");
  await expect.poll(likes).toBe(1);

  // The other tab does not know of it yet.
  await like(second).click();
  await expect(like(second)).toHaveAttribute("aria-pressed", "true");
  await expect(like(second)).toHaveText("1");
  expect(await likes()).toBe(1);

  await first.reload();
  await expect(like(first)).toHaveAttribute("aria-pressed", "true");
  await expect(like(first)).toHaveText("1");

  await like(first).click();
  await expect(like(first)).toHaveAttribute("aria-pressed", "false");
  await expect.poll(likes).toBe(0);
});

test("a like that the server refuses is taken back, and said", async ({ open, person }) => {
  const ada = await person("Ada");
  await ada.post("Can't touch this");
  const page = await open(ada);
  await page.route("**/like", (route) =>
    route.fulfill({
      status: 403,
      contentType: "application/problem+json",
      body: JSON.stringify({ type: "about:blank", title: "Not allowed", status: 403, detail: "you may not like this" }),
    }),
  );
  const like = card(page, "Can't touch this").getByRole("button", { name: /^Like/ });
  await like.click();
  await expect(page.getByText("You may not like this.")).toBeVisible();
  await expect(like).toHaveAttribute("aria-pressed", "false");
  await expect(like).toHaveText("");
});

test("the composer counts as people count, and turns at the limit", async ({ open, person }) => {
  const page = await open(await person("Ada"));
  const text = page.getByRole("textbox", { name: "New post" });
  const counter = page.getByTestId("counter");
  const post = page.getByRole("button", { name: "Post", exact: true });
  await expect(post).toBeDisabled();

  await text.fill("👩‍👩‍👧‍👦".repeat(10));
  await expect(counter).toContainText("270");
  await text.fill("é".normalize("NFD").repeat(280));
  await expect(counter).toContainText("0");
  await expect(counter).toHaveAttribute("data-state", "near");
  await expect(post).toBeEnabled();
  await text.fill("x".repeat(281));
  await expect(counter).toContainText("-1");
  await expect(counter).toHaveAttribute("data-state", "over");
  await expect(post).toBeDisabled();
  await text.fill(`Just right ${"👍🏽".repeat(269)}`);
  await expect(counter).toContainText("0");
  await post.click();
  await expect(card(page, "Just right")).toHaveCount(1);
  await expect(text).toHaveValue("");
});

test("what could not be sent stays written, and is not posted twice when sent again", async ({ open, person }) => {
  const ada = await person("Ada");
  const page = await open(ada);
  let lost = true;
  await page.route("**/v1/feed/posts", async (route) => {
    if (!lost) return route.continue();
    lost = false;
    // The server takes the post, but its answer never arrives.
    await route.fetch();
    return route.abort();
  });
  const text = page.getByRole("textbox", { name: "New post" });
  await text.fill("Once and only once");
  await page.getByRole("button", { name: "Post", exact: true }).click();
  await expect(page.getByRole("alert")).toContainText("can't be reached");
  await expect(text).toHaveValue("Once and only once");
  await page.getByRole("button", { name: "Post", exact: true }).click();
  await expect(text).toHaveValue("");
  await page.reload();
  await expect(card(page, "Once and only once")).toHaveCount(1);
});

test("replies, quotes and reposts appear where they belong", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  const { id } = await ada.post("The root of it all #roots");
  const page = await open(bob);
  const root = page.locator(`article[data-post="${id}"]`).first();

  await root.getByRole("button", { name: /^Reply/ }).click();
  await page.getByRole("dialog").getByLabel("Reply", { exact: true }).fill(`A branch for @${ada.handle}`);
  await page.getByRole("dialog").getByRole("button", { name: "Reply", exact: true }).click();
  await expect(root.getByRole("button", { name: /^Reply/ })).toHaveText("1");

  await root.getByRole("button", { name: /^Quote/ }).click();
  await page.getByRole("dialog").getByLabel("Quote", { exact: true }).fill("Worth quoting");
  await page.getByRole("dialog").getByRole("button", { name: "Post", exact: true }).click();
  await expect(card(page, "Worth quoting").getByRole("link", { name: /^Quoted post/ })).toContainText("The root of it all");

  await root.getByRole("button", { name: /^Repost/ }).click();
  await expect(root.getByRole("button", { name: /^Repost/ })).toHaveAttribute("aria-pressed", "true");

  await page.goto("/trends");
  await expect(page.getByRole("link", { name: /#roots/ }).first()).toBeVisible();
  await page.goto("/tag/roots");
  await card(page, "The root of it all").first().getByText("The root of it all").click();
  await expect(page).toHaveURL(/\/post\/\d+$/);
  await expect(page.getByRole("region", { name: "Replies" })).toContainText("A branch for");

  const adas = await open(ada, "/notifications");
  for (const said of ["replied to you", "quoted your post", "reposted your post", "followed you"]) {
    await expect(adas.getByText(said)).toBeVisible();
  }
});

test("a young post can be edited, and its history is kept", async ({ open, person }) => {
  const ada = await person("Ada");
  await ada.post("Teh first try");
  const page = await open(ada);
  await card(page, "Teh first try").getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Edit" }).click();
  await page.getByRole("dialog").getByLabel("Text").fill("The first try");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await expect(card(page, "The first try")).toHaveCount(1);
  await card(page, "The first try").getByRole("link", { name: "edited" }).click();
  const history = page.getByRole("dialog");
  await expect(history).toContainText("The first try");
  await expect(history).toContainText("Teh first try");
});

test("an edit does not write over one made elsewhere", async ({ open, person }) => {
  const ada = await person("Ada");
  const { id } = await ada.post("Version one");
  const page = await open(ada);
  await card(page, "Version one").getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Edit" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Text").fill("Version mine");
  await expect(dialog.getByRole("button", { name: "Save" })).toBeEnabled();
  await ada.call("PATCH", `/v1/feed/posts/${id}`, { text: "Version theirs" });
  await dialog.getByRole("button", { name: "Save" }).click();
  await expect(dialog.getByLabel("Text")).toHaveAttribute("aria-invalid", "true");
  expect((await ada.call<{ text: string }>("GET", `/v1/feed/posts/${id}`)).text).toBe("Version theirs");
});

test("following fills the home, and unfollowing, muting and blocking empty it", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await ada.post("From before you knew me");
  const page = await open(bob, `/u/${ada.handle}`);
  await page.getByRole("button", { name: "Follow", exact: true }).click();
  await expect(page.getByRole("button", { name: /^(Following|Unfollow)$/ })).toBeVisible();
  await expect(page.getByRole("link", { name: "1 follower" })).toBeVisible();
  await page.getByRole("link", { name: "Home", exact: true }).click();
  await expect(card(page, "From before you knew me")).toHaveCount(1);

  await card(page, "From before you knew me").getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: /^Mute/ }).click();
  await expect(card(page, "From before you knew me")).toHaveCount(0);
  await page.reload();
  await expect(page.getByText("Nothing here yet")).toBeVisible();

  await page.goto("/settings/people");
  await page.getByRole("button", { name: "Unmute" }).click();
  await expect(page.getByRole("button", { name: "Unmute" })).toHaveCount(0);
  await page.goto("/");
  await expect(card(page, "From before you knew me")).toHaveCount(1);
});

test("what happens to me is told live, and is read once seen", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  const { id } = await ada.post("Notice me");
  const page = await open(ada);
  await untilLive(page);
  const link = page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: /Notifications/ });
  await expect(link).not.toContainText("unread");
  await bob.call("PUT", `/v1/feed/posts/${id}/like`);
  await bob.follow(ada);
  await expect(link).toContainText("2 unread");
  await link.click();
  await expect(page.getByText("liked your post")).toBeVisible();
  await expect(link).not.toContainText("unread");
});

test("bookmarks are kept", async ({ open, person }) => {
  const ada = await person("Ada");
  await ada.post("Keep me for later");
  const page = await open(ada);
  const bookmark = card(page, "Keep me for later").getByRole("button", { name: "Bookmark" });
  await bookmark.click();
  await expect(bookmark).toHaveAttribute("aria-pressed", "true");
  await page.getByRole("link", { name: "Bookmarks", exact: true }).click();
  await expect(card(page, "Keep me for later")).toHaveCount(1);
});

test("the ranked order explains itself, and puts one's own new post on top", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  await ada.post("Rank this");
  const page = await open(bob, "/?order=ranked");
  await expect(card(page, "Rank this")).toHaveCount(1);
  await card(page, "Rank this").getByRole("button", { name: "Why this post is here" }).click();
  await expect(page.getByRole("dialog", { name: "Why this post is here" })).toContainText("Score");
  await expect(page.getByRole("dialog", { name: "Why this post is here" })).toContainText("%");
  await page.keyboard.press("Escape");

  await page.getByRole("textbox", { name: "New post" }).fill("Mine on top");
  await page.getByRole("button", { name: "Post", exact: true }).click();
  await expect(card(page, "Mine on top")).toHaveCount(1);
  await page.reload();
  await expect(page.locator("article[data-post]").first()).toContainText("Mine on top");
});

test("a long list goes on as one scrolls, each post once", async ({ open, person }) => {
  const ada = await person("Ada");
  for (let index = 0; index < 45; index += 1) await ada.post(`Number ${index} of many`);
  const page = await open(ada);
  await expect(card(page, "of many").first()).toBeVisible();
  await expect
    .poll(async () => {
      await page.mouse.wheel(0, 4000);
      return card(page, "of many").count();
    })
    .toBe(45);
  await expect(page.getByText("You have seen it all.")).toBeVisible();
});

test("being offline is said, and what is there stays", async ({ open, person }) => {
  const ada = await person("Ada");
  await ada.post("Still here");
  const page = await open(ada);
  await expect(card(page, "Still here")).toBeVisible();
  await page.context().setOffline(true);
  await expect(page.getByText("You are offline.")).toBeVisible();
  await expect(card(page, "Still here")).toBeVisible();
  await page.context().setOffline(false);
  await expect(page.getByText("You are offline.")).toHaveCount(0);
});
