import { Server } from "./server";
import { expect, signInAsAdmin, test } from "./test";

test("the glass box shows a post's way until it has reached its followers", async ({ openAsAdmin, person }) => {
  const ada = await person("Ada");
  const followers = [await person("Bob"), await person("Cy"), await person("Di")];
  for (const follower of followers) await follower.follow(ada);
  const { id } = await ada.post("Watch me travel");

  const page = await openAsAdmin(`/glass/feed?post=${id}&user=${followers[0]?.handle ?? ""}`);
  const journey = page.getByTestId("journey");
  await expect(journey).toHaveAttribute("data-pending", "false");
  await expect(journey).toContainText("3 followers");
  await expect(journey.getByRole("img", { name: /^Partition \d+, offset \d+$/ })).toBeVisible();
  await expect(journey.getByRole("img", { name: "3 of 3 followers looked at have it" })).toBeVisible();

  const timeline = page.getByTestId("timeline");
  await expect(timeline.getByRole("link", { name: id })).toBeVisible();
  await expect(timeline.getByRole("row", { name: new RegExp(id) })).toContainText("pushed");
});

test("the glass box tells why an entry is left out", async ({ openAsAdmin, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  const { id } = await ada.post("Muted soon");
  const page = await openAsAdmin(`/glass/feed?user=${bob.handle}`);
  const row = page.getByTestId("timeline").getByRole("row", { name: new RegExp(id) });
  await expect(row).toBeVisible();
  await bob.call("PUT", `/v1/feed/mutes/${ada.handle}`);
  await expect(row).toContainText("left out: muted");
});

test("the overview is live", async ({ openAsAdmin, person }) => {
  const ada = await person("Ada");
  const page = await openAsAdmin("/admin");
  await expect(page.getByTestId("overview")).toHaveAttribute("data-live", "true");
  await expect(page.getByRole("region", { name: "Systems" }).first()).toContainText("feed");
  const commits = page.locator("section", { hasText: "Store" }).getByText("Commits", { exact: true }).locator("..");
  const before = await commits.textContent();
  await ada.post("One more commit");
  await expect.poll(() => commits.textContent()).not.toBe(before);
});

test("the cluster's page says that one node is alone, and nothing can be broken", async ({ openAsAdmin }) => {
  const page = await openAsAdmin("/admin/cluster");
  await expect(page.getByTestId("alone")).toContainText("This is one node");
  await expect(page.getByTestId("node")).toHaveCount(1);
  await expect(page.getByTestId("node")).toContainText("this one");
  await expect(page.getByRole("region", { name: "Shards" })).toHaveCount(0);
  await expect(page.getByRole("tab", { name: "Cluster" })).toHaveAttribute("aria-selected", "true");
  await expect(page.getByRole("tab", { name: "Chaos" })).toHaveCount(0);
  await page.goto("/admin/chaos");
  await expect(page.getByText("Nothing can be broken here")).toBeVisible();
});

test("a page whose node dies says so, shows what it knew, and signs nobody out", async ({ browser }) => {
  const server = await Server.start();
  const context = await browser.newContext({ baseURL: server.url });
  try {
    const page = await context.newPage();
    await signInAsAdmin(page, server.adminToken, "/admin/cluster");
    await expect(page.getByTestId("node")).toHaveCount(1);
    await server.stop();
    await expect(page.getByRole("alert").filter({ hasText: "does not answer as it should" })).toBeVisible();
    // The live connection was tried again a few times by then.
    await page.waitForTimeout(3000);
    await expect(page.getByTestId("node")).toHaveCount(1);
  } finally {
    await context.close();
    await server.stop();
  }
});

test("a request's trace opens as a waterfall", async ({ openAsAdmin, person }) => {
  const ada = await person("Ada");
  await ada.post("Trace me");
  const page = await openAsAdmin("/admin/traces");
  await page.getByLabel("Only traces whose name holds").fill("/v1/feed/posts");
  await page.getByRole("button", { name: /POST.*\/v1\/feed\/posts/ }).first().click();
  await expect(page.getByRole("dialog").locator("button[aria-expanded]").first()).toContainText("/v1/feed/posts");
});

test("an administrator acts for somebody in one tab, and it is written down", async ({ openAsAdmin, person }) => {
  const ada = await person("Ada");
  const page = await openAsAdmin("/admin/accounts");
  const row = page.getByRole("row", { name: new RegExp(`@${ada.handle}\\b`) });
  await expect
    .poll(async () => {
      await page.mouse.wheel(0, 3000);
      return row.count();
    })
    .toBe(1);
  await row.getByRole("button", { name: "Token" }).click();
  await page.getByRole("button", { name: "Make the token" }).click();
  await page.getByRole("button", { name: `Act as @${ada.handle}` }).click();
  await expect(page.getByRole("button", { name: "Account of Ada" })).toBeVisible();

  const other = await page.context().newPage();
  await other.goto("/admin/audit");
  // The other tab is still the administrator's.
  const minted = other.getByRole("row").filter({ hasText: "token.minted" }).filter({ hasText: `@${ada.handle}` });
  await expect(minted).toContainText("@admin");
});

test("who is no administrator sees neither admin pages nor the inside", async ({ open, person }) => {
  const page = await open(await person("Ada"));
  await expect(page.getByRole("link", { name: "Glass box" }).first()).toBeVisible();
  await expect(page.getByRole("link", { name: "Admin" })).toHaveCount(0);
  await page.goto("/admin");
  await expect(page.getByText("This is for administrators")).toBeVisible();
  await page.goto("/glass/feed");
  await expect(page.getByRole("alert")).toBeVisible();
});
