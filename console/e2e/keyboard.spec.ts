import { expect, test } from "./test";

test("everything of a visit can be done with the keyboard alone", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await bob.follow(ada);
  await ada.post("The first of two");
  await ada.post("The second of two");
  const page = await open(bob);
  const posts = page.locator("article[data-post]");
  await expect(posts).toHaveCount(2);

  await page.keyboard.press("j");
  await expect(posts.nth(0)).toBeFocused();
  await page.keyboard.press("j");
  await expect(posts.nth(1)).toBeFocused();
  await page.keyboard.press("k");
  await expect(posts.nth(0)).toBeFocused();
  await page.keyboard.press("l");
  await expect(posts.nth(0).getByRole("button", { name: /^Like/ })).toHaveAttribute("aria-pressed", "true");

  await page.keyboard.press("r");
  await expect(page.getByRole("dialog").getByLabel("Reply", { exact: true })).toBeFocused();
  await page.keyboard.type("Typed without a mouse");
  await page.keyboard.press("Control+Enter");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await expect(posts.filter({ hasText: "The second of two" }).getByRole("button", { name: /^Reply/ })).toHaveText("1");

  await page.keyboard.press("n");
  await expect(page.getByRole("dialog").getByRole("textbox", { name: "New post" })).toBeFocused();
  await page.keyboard.type("Posted by keyboard, jkl not taken for commands");
  await page.keyboard.press("Control+Enter");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await expect(posts.filter({ hasText: "Posted by keyboard" })).toHaveCount(1);

  await page.keyboard.press("g");
  await page.keyboard.press("n");
  await expect(page).toHaveURL(/\/notifications$/);
  await page.keyboard.press("g");
  await page.keyboard.press("h");
  await expect(page).toHaveURL(/\/$/);

  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);

  await page.keyboard.press("/");
  await expect(page.getByRole("dialog").getByRole("textbox")).toBeFocused();
  await page.keyboard.type(`@${ada.handle}`);
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(new RegExp(`/u/${ada.handle}$`));
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await expect(page.getByRole("article", { name: "The second of two" })).toBeVisible();
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/post\/\d+$/);
});

test("the first tab stop skips to the content, and every stop can be seen", async ({ open, person }) => {
  const page = await open(await person("Ada"));
  await page.reload();
  await expect(page.getByText("Nothing here yet")).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("#main")).toBeFocused();

  for (let stop = 0; stop < 12; stop += 1) {
    await page.keyboard.press("Tab");
    const seen = await page.evaluate(() => {
      const element = document.activeElement;
      if (element === null || element === document.body) return true;
      // A segmented control and a text field show the focus on what surrounds them.
      for (let each: Element | null = element; each !== null && each !== document.body; each = each.parentElement) {
        const style = getComputedStyle(each);
        if (style.outlineStyle !== "none" && style.outlineWidth !== "0px") return true;
        if (style.boxShadow !== "none") return true;
      }
      return element.matches("textarea, input");
    });
    expect(seen, await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 120) ?? "")).toBe(true);
  }
});
