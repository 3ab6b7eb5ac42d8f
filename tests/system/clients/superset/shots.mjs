// Signs in to Superset with a real browser and takes a picture of each dashboard: ORIGIN FOLDER SLUG…
// Writes a JSON line for each: how long it took until everything was drawn, how many charts there are, how many of them are
// empty, and what failed.
import { chromium } from "playwright-core";

const [origin, folder, ...slugs] = process.argv.slice(2);
const WIDTH = 1280;
const PATIENCE = 60_000;
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
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
const page = await browser.newPage({ viewport: { width: WIDTH, height: 1000 } });

async function reached() {
  const end = Date.now() + PATIENCE;
  for (;;) {
    try {
      return await page.goto(`${origin}/login/`);
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

// All charts have an answer, or say that there is none.
const drawn = () => {
  const charts = [...document.querySelectorAll(".dashboard-chart")];
  const ready = (chart) =>
    !chart.querySelector('.loading, [data-test="loading-indicator"]') &&
    chart.querySelector("canvas, table, .header-line, .ant-empty, [role=alert]");
  return charts.length > 0 && charts.every(ready);
};

await reached();
await page.fill("#username", "admin");
await page.fill("#password", "admin");
await Promise.all([page.waitForURL((url) => !url.pathname.startsWith("/login")), page.click("button[type=submit], input[type=submit]")]);
// The first page that is opened fetches Superset's own program, which is none of the dashboards' time.
await page.goto(`${origin}/superset/dashboard/${slugs[0]}/`);
await page.waitForFunction(drawn, null, { timeout: PATIENCE });
for (const slug of slugs) {
  const failed = [];
  const look = async (response) => {
    if (response.url().includes("/api/v1/chart/data") && !response.ok()) failed.push((await response.text()).slice(0, 500));
  };
  page.on("response", look);
  const began = Date.now();
  await page.goto(`${origin}/superset/dashboard/${slug}/`);
  await page.waitForSelector(".grid-container", { timeout: PATIENCE });
  // What is below the window is asked for when it comes into it.
  const height = await page.evaluate(() => document.querySelector(".grid-container").scrollHeight);
  await page.setViewportSize({ width: WIDTH, height: Math.min(height + 200, 3000) });
  await page.waitForFunction(drawn, null, { timeout: PATIENCE });
  const took = Date.now() - began;
  // Bars grow for a moment.
  await page.waitForTimeout(1500);
  await page.screenshot({ path: `${folder}/${slug.replace("chaperone-", "")}.png` });
  page.off("response", look);
  const charts = await page.locator(".dashboard-chart").count();
  const empty = await page.locator(".dashboard-chart .ant-empty").count();
  const errors = await page.locator(".dashboard-chart [role=alert]").allInnerTexts();
  console.log(JSON.stringify({ slug, took_ms: took, charts, empty, failed: [...failed, ...errors] }));
  await page.setViewportSize({ width: WIDTH, height: 1000 });
}
await browser.close();
