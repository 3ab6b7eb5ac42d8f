// Approvers in a real browser, told what to do line by line, each a JSON array: a name and its arguments. It answers with
// one JSON line each.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [origin] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // The provider's own pages ask for fonts.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.9",
  ],
});
const people = new Map();

async function page(who) {
  if (!people.has(who)) {
    // The certificate is the test's own, and its key is pinned nowhere else than here.
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const own = await context.newPage();
    const errors = [];
    own.on("pageerror", (error) => errors.push(String(error)));
    own.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    people.set(who, { context, page: own, errors });
  }
  return people.get(who);
}

const question = (own, id) => own.locator(`li[data-id="${id}"]`);

const acts = {
  // To the provider's own pages and back.
  async signIn(who, account = who) {
    const { page: own, context } = await page(who);
    await own.goto(`${origin}/sign-in`);
    await own.fill('input[name="login"]', account);
    await own.fill('input[name="password"]', "anything");
    await own.click('button[type="submit"]');
    // Consent.
    await own.click('button[type="submit"]');
    const done = own.getByRole("button", { name: "Sign out" });
    await done.or(own.getByRole("heading", { name: "Not signed in" })).waitFor();
    // The provider is at the same address.
    const cookies = (await context.cookies(origin)).filter((cookie) => cookie.name.startsWith("__Host-chaperone"));
    return {
      url: own.url(),
      text: await own.innerText("body"),
      cookies: cookies.map(({ name, httpOnly, secure, sameSite }) => ({ name, httpOnly, secure, sameSite })),
    };
  },
  // To a provider that asks who it is, with a code that it wants to be told, if there is one; to where it ends.
  async logIn(who, url, code) {
    const { page: own } = await page(who);
    await own.goto(url);
    if (code) {
      await own.fill('input[name="user_code"]', code);
      await own.click('button[type="submit"]');
      await own.getByRole("heading", { name: "Confirm Device" }).waitFor();
      await own.click('button[type="submit"]');
    }
    await own.fill('input[name="login"]', who);
    await own.fill('input[name="password"]', "anything");
    await own.click('button[type="submit"]');
    // Consent.
    await own.getByText("offline access").waitFor();
    await own.click('button[type="submit"]');
    await own.getByText(/goes on in the terminal|Sign-in Success/).waitFor();
    return { url: own.url(), text: await own.innerText("body") };
  },
  async plant(who, name, value) {
    const { context } = await page(who);
    await context.addCookies([{ name, value, url: origin, secure: true, httpOnly: true }]);
  },
  async cookie(who, name) {
    const { context } = await page(who);
    return (await context.cookies(origin)).find((cookie) => cookie.name === name)?.value ?? null;
  },
  async look(who) {
    const { page: own } = await page(who);
    await own.goto(`${origin}/`);
    await own.waitForLoadState("networkidle");
    return own.innerText("body");
  },
  async open(who, path) {
    const { page: own } = await page(who);
    const response = await own.goto(`${origin}${path}`);
    return { status: response.status(), text: await own.innerText("body") };
  },
  async read(who, id) {
    const { page: own } = await page(who);
    await question(own, id).waitFor();
    return question(own, id).innerText();
  },
  async deny(who, id, reason) {
    const { page: own } = await page(who);
    const item = question(own, id);
    await item.getByLabel("Reason").fill(reason);
    await item.getByRole("button", { name: "Deny" }).click();
    await own.getByRole("status").filter({ hasText: "Denied." }).waitFor();
    return item.innerText();
  },
  async allow(who, id) {
    const { page: own } = await page(who);
    await question(own, id).getByRole("button", { name: "Allow" }).click();
    await Promise.race([
      own.getByRole("status").filter({ hasText: "counts" }).waitFor(),
      own.getByRole("alert").filter({ hasText: /./ }).waitFor(),
    ]);
    return own.innerText("body");
  },
  // What another site can do with this person's browser.
  async attack(who, elsewhere, id) {
    const { context } = await page(who);
    const evil = await context.newPage();
    await evil.goto(elsewhere);
    const path = `${origin}/api/v1/questions/${id}/approve`;
    const result = await evil.evaluate(async (to) => {
      const simple = await fetch(to, { method: "POST", mode: "no-cors", credentials: "include", body: "{}" })
        .then((response) => response.type, String);
      const read = await fetch(to.replace("/approve", ""), { credentials: "include" }).then((it) => it.text(), String);
      return { simple, read };
    }, path);
    // A form, which the browser sends as a navigation.
    const posted = evil.waitForResponse((response) => response.url() === path);
    await evil.evaluate((to) => {
      const form = document.createElement("form");
      form.method = "POST";
      form.action = to;
      document.body.append(form);
      form.submit();
    }, path);
    result.form = (await posted).status();
    await evil.waitForURL(path);
    await evil.goto(elsewhere);
    await evil.evaluate(async (to) => {
      const frame = document.createElement("iframe");
      // A frame that isn't allowed loads, too: a page of the browser's own.
      const loaded = new Promise((resolve) => {
        frame.onload = resolve;
      });
      frame.src = to;
      document.body.append(frame);
      await loaded;
    }, `${origin}/`);
    const inside = evil.frames().find((frame) => frame !== evil.mainFrame());
    result.framed = await inside.evaluate(() => document.documentElement.outerHTML).catch(String);
    await evil.close();
    return result;
  },
  async phone(who) {
    const { page: own } = await page(who);
    await own.setViewportSize({ width: 360, height: 740 });
    const wide = await own.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    await own.setViewportSize({ width: 1280, height: 720 });
    return { wide };
  },
  async signOut(who) {
    const { page: own } = await page(who);
    await own.getByRole("button", { name: "Sign out" }).click();
    await own.getByRole("link", { name: "Sign in" }).waitFor();
    return own.innerText("body");
  },
  async picture(who, file) {
    const { page: own } = await page(who);
    await own.screenshot({ path: file, fullPage: true });
  },
  async errors(who) {
    return (await page(who)).errors;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await acts[name](...rest)) ?? null };
  } catch (error) {
    answer = { failed: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
