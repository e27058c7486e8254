import { AxeBuilder } from "@axe-core/playwright";
import type { Page } from "@playwright/test";
import { card, expect, test, type Person } from "./test";

const PHONE = { width: 390, height: 844 };

async function fill(ada: Person, bob: Person): Promise<string> {
  await bob.follow(ada);
  await ada.follow(bob);
  const { id } = await ada.post(`Good morning, @${bob.handle}! #morning https://example.org/a/page`);
  await bob.post("Same to you", { replyTo: id });
  await bob.call("PUT", `/v1/feed/posts/${id}/like`);
  await bob.call("POST", "/v1/feed/posts", { text: "Well said", quoteOf: id });
  return id;
}

async function hasNoViolations(page: Page, what: string): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const told = violations.map(
    (violation) => `${violation.id}: ${violation.help}\n    ${violation.nodes.map((node) => node.html).join("\n    ")}`,
  );
  expect(told, what).toEqual([]);
}

/** Settled: nothing is loading any more. */
async function settled(page: Page): Promise<void> {
  await expect(page.locator("#root [aria-label^='Loading']")).toHaveCount(0);
  await page.evaluate(() => document.fonts.ready.then(() => undefined));
}

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing on any page, ${colorScheme}`, async ({ open, openAsAdmin, person, browser, server }) => {
    test.setTimeout(600_000);
    const ada = await person("Ada");
    const bob = await person("Bob");
    const id = await fill(ada, bob);

    const stranger = await browser.newContext({ baseURL: server.url, colorScheme });
    const outside = await stranger.newPage();
    for (const path of ["/signin", "/signup"]) {
      await outside.goto(path);
      await expect(outside.getByRole("heading")).toBeVisible();
      await hasNoViolations(outside, path);
    }
    await stranger.close();

    const page = await open(ada, "/", { colorScheme });
    await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", colorScheme);
    for (const path of [
      "/",
      "/?order=ranked",
      `/post/${id}`,
      `/u/${ada.handle}`,
      `/u/${bob.handle}`,
      `/u/${bob.handle}/followers`,
      "/tag/morning",
      "/trends",
      "/notifications",
      "/bookmarks",
      "/settings",
      "/settings/security",
      "/settings/keys",
      "/settings/people",
      "/settings/data",
      "/glass/feed",
      "/admin",
      "/no/such/page",
    ]) {
      await page.goto(path);
      await settled(page);
      await hasNoViolations(page, path);
    }

    await page.goto("/");
    await card(page, "Good morning").first().getByRole("button", { name: "More" }).click();
    await expect(page.getByRole("menu")).toBeVisible();
    await hasNoViolations(page, "a post's menu");
    await page.keyboard.press("Escape");
    await expect(page.getByRole("menu")).toHaveCount(0);
    for (const key of ["n", "?", "/"]) {
      await page.keyboard.press(key);
      await expect(page.getByRole("dialog")).toBeVisible();
      // Contrast is measured when the dialog has faded in.
      await page.waitForFunction(() =>
        document.getAnimations().every((animation) => animation.playState !== "running"),
      );
      await hasNoViolations(page, `the dialog of ${key}`);
      await page.keyboard.press("Escape");
      await expect(page.getByRole("dialog")).toHaveCount(0);
    }

    const admin = await openAsAdmin("/admin", { colorScheme });
    for (const path of ["/admin", "/admin/cluster", "/admin/chaos", "/admin/traces", "/admin/letters", "/admin/accounts", "/admin/audit", `/glass/feed?post=${id}&user=${bob.handle}`]) {
      await admin.goto(path);
      await settled(admin);
      await hasNoViolations(admin, path);
    }
  });
}

test("on a phone everything fits, and the navigation is at the bottom", async ({ open, openAsAdmin, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  const id = await fill(ada, bob);
  const fits = async (page: Page, path: string) => {
    await page.goto(path);
    await settled(page);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(over, path).toBeLessThanOrEqual(0);
  };
  const page = await open(ada, "/", { viewport: PHONE, hasTouch: true });
  for (const path of ["/", `/post/${id}`, `/u/${bob.handle}`, "/trends", "/notifications", "/settings", "/settings/security", "/settings/keys"]) {
    await fits(page, path);
  }
  const admin = await openAsAdmin("/admin", { viewport: PHONE, hasTouch: true });
  for (const path of ["/admin", "/admin/cluster", "/admin/traces", "/admin/accounts", `/glass/feed?post=${id}`]) await fits(admin, path);

  const bar = page.getByRole("navigation", { name: "Main" });
  await expect(bar).toHaveCount(1);
  await bar.getByRole("link", { name: "Trends" }).tap();
  await expect(page).toHaveURL(/\/trends$/);
  const box = await bar.boundingBox();
  expect((box?.y ?? 0) + (box?.height ?? 0)).toBe(PHONE.height);

  await bar.getByRole("button", { name: "New post" }).tap();
  await page.getByRole("dialog").getByRole("textbox", { name: "New post" }).fill("From my phone");
  await page.getByRole("dialog").getByRole("button", { name: "Post", exact: true }).tap();
  await bar.getByRole("link", { name: "Home" }).tap();
  await expect(card(page, "From my phone")).toHaveCount(1);
});

test("the colours follow the system until one chooses, and a choice holds", async ({ open, person }) => {
  const page = await open(await person("Ada"), "/", { colorScheme: "dark" });
  const html = page.locator("html");
  await expect(html).toHaveAttribute("data-mantine-color-scheme", "dark");
  await page.emulateMedia({ colorScheme: "light" });
  await expect(html).toHaveAttribute("data-mantine-color-scheme", "light");
  await page.getByRole("button", { name: "Dark colours" }).first().click();
  await expect(html).toHaveAttribute("data-mantine-color-scheme", "dark");
  await page.reload();
  await expect(html).toHaveAttribute("data-mantine-color-scheme", "dark");
});

test("no page asks anybody but the server, and none breaks the content security policy", async ({ open, person, server }) => {
  const ada = await person("Ada");
  await ada.post("Alone with the server");
  const page = await open(ada);
  const elsewhere: string[] = [];
  const refused: string[] = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url) && !request.url().startsWith("blob:")) elsewhere.push(request.url());
  });
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) refused.push(message.text());
  });
  for (const path of ["/", "/trends", "/settings", "/glass/feed"]) {
    await page.goto(path);
    await settled(page);
  }
  expect(elsewhere).toEqual([]);
  expect(refused).toEqual([]);
});
