/** What the tests share: the server, people, and browsers in which they are signed in. */
import { test as base, expect, type BrowserContext, type BrowserContextOptions, type Page } from "@playwright/test";
import { Server } from "./server";

export { expect };

const PASSWORD = "three geese over a lake";

/** Somebody with an account, as far as the tests can tell. */
export class Person {
  constructor(
    private readonly server: Server,
    readonly handle: string,
    readonly name: string,
    readonly password: string,
    private readonly tokens: { accessToken: string },
  ) {}

  /** A call of the API by this person. */
  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    return callApi<T>(this.server, method, path, body, this.tokens.accessToken);
  }

  async post(text: string, more: { replyTo?: string } = {}): Promise<{ id: string }> {
    return this.call("POST", "/v1/feed/posts", { text, ...more });
  }

  async follow(other: Person): Promise<void> {
    await this.call("PUT", `/v1/feed/follows/${other.handle}`);
  }
}

async function callApi<T>(server: Server, method: string, path: string, body?: unknown, token?: string): Promise<T> {
  const answer = await fetch(`${server.url}${path}`, {
    method,
    headers: {
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

let count = 0;

interface Fixtures {
  /** Makes an account with a handle of its own. */
  person: (name: string) => Promise<Person>;
  /** A browser with its own storage, with this person signed in, at a path. */
  open: (person: Person, path?: string, options?: BrowserContextOptions) => Promise<Page>;
  /** A browser in which the administrator is signed in. */
  openAsAdmin: (path: string, options?: BrowserContextOptions) => Promise<Page>;
  /** Calls the API as the administrator. */
  asAdmin: <T>(method: string, path: string, body?: unknown) => Promise<T>;
}

export const test = base.extend<Fixtures & { contexts: BrowserContext[] }, { server: Server }>({
  server: [
    async ({}, use) => {
      const server = await Server.start();
      await use(server);
      await server.stop();
    },
    { scope: "worker", timeout: 120_000 },
  ],

  baseURL: async ({ server }, use) => use(server.url),

  contexts: async ({}, use) => {
    const contexts: BrowserContext[] = [];
    await use(contexts);
    await Promise.all(contexts.map((context) => context.close()));
  },

  person: async ({ server }, use) => {
    await use(async (name) => {
      count += 1;
      const handle = `${name.toLowerCase()}_${process.pid}_${count}`;
      await callApi(server, "POST", "/v1/identity/accounts", { handle, name, password: PASSWORD });
      const tokens = await callApi<{ accessToken: string }>(server, "POST", "/v1/identity/login", {
        handle,
        password: PASSWORD,
      });
      return new Person(server, handle, name, PASSWORD, tokens);
    });
  },

  open: async ({ browser, server, contexts }, use) => {
    await use(async (person, path = "/", options = {}) => {
      const context = await browser.newContext({ ...standard, baseURL: server.url, ...options });
      contexts.push(context);
      const page = await context.newPage();
      await signIn(page, person, path);
      return page;
    });
  },

  openAsAdmin: async ({ browser, server, contexts }, use) => {
    await use(async (path, options = {}) => {
      const context = await browser.newContext({ ...standard, baseURL: server.url, ...options });
      contexts.push(context);
      const page = await context.newPage();
      await signInAsAdmin(page, server.adminToken, path);
      return page;
    });
  },

  asAdmin: async ({ server }, use) => {
    await use((method, path, body) => callApi(server, method, path, body, server.adminToken));
  },
});

const standard: BrowserContextOptions = { viewport: { width: 1280, height: 860 }, colorScheme: "light" };

export async function signIn(page: Page, person: Person, path = "/"): Promise<void> {
  await page.goto(`/signin?next=${encodeURIComponent(path)}`);
  await page.getByLabel("Handle").fill(person.handle);
  await page.getByLabel("Password", { exact: true }).fill(person.password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.locator("#main")).toBeVisible();
}

export async function signInAsAdmin(page: Page, token: string, path: string): Promise<void> {
  await page.goto(`/signin?next=${encodeURIComponent(path)}`);
  await page.getByRole("button", { name: "Sign in with a token" }).click();
  await page.getByLabel("Token", { exact: true }).fill(token);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.locator("#main")).toBeVisible();
}

/** Waits until what happens elsewhere would be seen here. */
export async function untilLive(page: Page): Promise<void> {
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
}

/** A post's card by (part of) its text. */
export const card = (page: Page, text: string) => page.locator("article[data-post]").filter({ hasText: text });
