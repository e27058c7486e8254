import { expect, signIn, test } from "./test";

test("signing up tells of errors at their fields, then leads home", async ({ page }) => {
  await page.goto("/signup");
  await page.getByLabel("Handle").fill("no spaces!");
  await page.getByLabel("Password", { exact: true }).fill("three geese over a lake");
  await page.getByRole("button", { name: "Make the account" }).click();
  await expect(page.getByLabel("Handle")).toHaveAttribute("aria-invalid", "true");
  await expect(page.getByLabel("Password", { exact: true })).not.toHaveAttribute("aria-invalid", "true");

  await page.getByLabel("Handle").fill(`new_${Date.now()}`);
  await page.getByLabel("Password", { exact: true }).fill("short");
  await page.getByRole("button", { name: "Make the account" }).click();
  await expect(page.getByLabel("Password", { exact: true })).toHaveAttribute("aria-invalid", "true");
  await expect(page.getByLabel("Handle")).not.toHaveAttribute("aria-invalid", "true");

  await page.getByLabel("Password", { exact: true }).fill("password123");
  await page.getByRole("button", { name: "Make the account" }).click();
  await expect(page.getByLabel("Password", { exact: true })).toHaveAttribute("aria-invalid", "true");

  await page.getByLabel("Password", { exact: true }).fill("three geese over a lake");
  await page.getByRole("button", { name: "Make the account" }).click();
  await expect(page.getByRole("heading", { name: "Home" })).toBeVisible();
});

test("a wrong password is told, and the page asked for comes after signing in", async ({ page, person }) => {
  const ada = await person("Ada");
  await page.goto("/settings");
  await expect(page).toHaveURL(/\/signin\?next=/);
  await page.getByLabel("Handle").fill(ada.handle);
  await page.getByLabel("Password", { exact: true }).fill("not my password");
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByRole("alert")).toBeVisible();
  await page.getByLabel("Password", { exact: true }).fill(ada.password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page).toHaveURL(/\/settings$/);
  await expect(page.getByLabel("Name")).toHaveValue("Ada");
});

test("signing out signs out every tab", async ({ open, person }) => {
  const ada = await person("Ada");
  const first = await open(ada);
  const second = await first.context().newPage();
  await second.goto("/notifications");
  await expect(second.getByRole("heading", { name: "Notifications" })).toBeVisible();

  await first.getByRole("button", { name: "Account of Ada" }).click();
  await first.getByRole("menuitem", { name: "Sign out", exact: true }).click();
  await expect(first.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible();
  await expect(second.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible();
});

test("signing out everywhere ends the session in another browser, which returns to sign in", async ({ open, person }) => {
  const ada = await person("Ada");
  const here = await open(ada);
  const elsewhere = await open(ada);
  await here.getByRole("button", { name: "Account of Ada" }).click();
  await here.getByRole("menuitem", { name: "Sign out everywhere" }).click();
  await expect(here.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible();
  // Nobody touches the other browser: it notices by itself.
  await expect(elsewhere.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible({ timeout: 30_000 });
});

test("a session ended in the settings of another browser is over", async ({ open, person }) => {
  const ada = await person("Ada");
  const lost = await open(ada);
  const here = await open(ada, "/settings/security");
  const others = here.getByRole("button", { name: /^End the session/ });
  // The one that made the account's tokens for this test, the lost one, and this one.
  await expect(others).toHaveCount(3);
  await expect(here.getByText("This one")).toHaveCount(1);
  for (let left = 3; left > 1; left -= 1) {
    await here
      .locator("section", { hasText: "Sessions" })
      .locator("div", { has: here.getByRole("button", { name: /^End the session/ }), hasNotText: "This one" })
      .getByRole("button", { name: /^End the session/ })
      .last()
      .click();
    await expect(others).toHaveCount(left - 1);
  }
  await expect(lost.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible({ timeout: 30_000 });
  await expect(here.getByText("This one")).toBeVisible();
});

test("tabs share one rotation of the refresh token", async ({ open, person }) => {
  const ada = await person("Ada");
  const first = await open(ada);
  const refreshes: string[] = [];
  await first.context().route("**/v1/identity/tokens/refresh", async (route) => {
    refreshes.push(route.request().url());
    await route.continue();
  });
  // As if the access token had run out while the laptop slept.
  await first.evaluate(() => {
    const session = JSON.parse(localStorage.getItem("holon.session") ?? "{}") as Record<string, unknown>;
    localStorage.setItem("holon.session", JSON.stringify({ ...session, expiresAt: Date.now() - 1000 }));
  });
  const second = await first.context().newPage();
  await Promise.all([first.reload(), second.goto("/")]);
  await expect(first.getByRole("heading", { name: "Home" })).toBeVisible();
  await expect(second.getByRole("heading", { name: "Home" })).toBeVisible();
  await expect(first.getByText("Nothing here yet")).toBeVisible();
  await expect(second.getByText("Nothing here yet")).toBeVisible();
  expect(refreshes).toHaveLength(1);
});

test("an account can be exported and erased", async ({ open, person, page }) => {
  const ada = await person("Ada");
  await ada.post("Remember me");
  const tab = await open(ada, "/settings/data");
  const download = tab.waitForEvent("download");
  await tab.getByRole("button", { name: "Download your data" }).click();
  expect((await download).suggestedFilename()).toBe(`holon-${ada.handle}.json`);

  await tab.getByRole("button", { name: "Erase the account…" }).click();
  const dialog = tab.getByRole("dialog");
  await expect(dialog.getByRole("button", { name: "Erase for ever" })).toBeDisabled();
  await dialog.getByLabel(`Type ${ada.handle} to confirm`).fill(ada.handle);
  await dialog.getByLabel("Password", { exact: true }).fill(ada.password);
  await dialog.getByRole("button", { name: "Erase for ever" }).click();
  await expect(tab.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible();

  await page.goto("/signin");
  await page.getByLabel("Handle").fill(ada.handle);
  await page.getByLabel("Password", { exact: true }).fill(ada.password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByRole("alert")).toBeVisible();
});

test("an API key is shown once and works until it is deleted", async ({ open, person, server }) => {
  const ada = await person("Ada");
  const page = await open(ada, "/settings/keys");
  await page.getByLabel("Name").fill("a script");
  await page.getByLabel("All of feed").check();
  await page.getByRole("button", { name: "Make the key" }).click();
  const shown = page.getByRole("status").filter({ hasText: "Copy it now" });
  const key = (await shown.getByText(/^hk_/).textContent()) ?? "";
  const ask = async () => (await fetch(`${server.url}/v1/feed/home`, { headers: { Authorization: `Bearer ${key}` } })).status;
  expect(await ask()).toBe(200);

  await page.reload();
  await expect(page.getByText("a script")).toBeVisible();
  await expect(page.getByText(key)).toHaveCount(0);
  await page.getByRole("button", { name: "Delete the key a script" }).click();
  await expect(page.getByText("None yet.")).toBeVisible();
  expect(await ask()).toBe(401);
});

test("somebody else who signs in sees nothing of the one before", async ({ open, person }) => {
  const ada = await person("Ada");
  const bob = await person("Bob");
  await ada.post("Between me and my diary");
  const page = await open(ada);
  await expect(page.getByText("Between me and my diary")).toBeVisible();
  await page.getByRole("button", { name: "Account of Ada" }).click();
  await page.getByRole("menuitem", { name: "Sign out", exact: true }).click();
  await expect(page.getByRole("heading", { name: "Sign in to Holon" })).toBeVisible();
  await signIn(page, bob);
  await expect(page.getByText("Nothing here yet")).toBeVisible();
  await expect(page.getByText("Between me and my diary")).toHaveCount(0);
});
