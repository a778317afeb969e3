// What the tests of whole meetings share: one demo server, one browser, a context per person, and a look at each screen.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { launch } from "./people.mjs";
import { ROOT, Server, artefacts } from "./server.mjs";

const run = promisify(execFile);
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 740 };
/** Narrower than any telephone, and what 200 % zoom leaves of a small window. */
const NARROWEST = { width: 320, height: 640 };
const SIZES = { desktop: DESKTOP, phone: PHONE };
/** Enough presence for `granted`, seconds: a test does not wait a minute for it. */
const PRESENCE_SECONDS = 4;

/** The counter: the demo's server and the browser in which everyone has a context of their own. */
export class Counter {
  /**
   * @param {string} name folder of its artefacts
   * @param {{cameras?: number}} [options]
   */
  static async open(name, { cameras = 1 } = {}) {
    const folder = artefacts(name);
    const data = mkdtempSync(join(tmpdir(), "sportello-"));
    const profiles = join(data, "profiles");
    mkdirSync(profiles);
    for (const profile of ["delega", "videochiamata"]) {
      const text = readFileSync(join(ROOT, "config/profiles", `${profile}.toml`), "utf8");
      const shorter = text.replace(/^(minimum_presence_seconds *= *)[1-9]\d*/m, `$1${PRESENCE_SECONDS}`);
      writeFileSync(join(profiles, `${profile}.toml`), shorter);
    }
    const env = { SPORTELLO__ROOMS__PROFILES: profiles, SPORTELLO__HTTP__JOIN_BURST: "1000" };
    const server = await Server.start({ data, log: join(folder, "server.log"), demo: true, env });
    return new Counter(folder, data, server, await launch(undefined, { cameras }));
  }

  constructor(folder, data, server, browser) {
    this.folder = folder;
    this.data = data;
    this.server = server;
    this.browser = browser;
    this.visitors = [];
  }

  /** A person at a device of their own. */
  async visitor(name, { phone = false, locale = "it-IT" } = {}) {
    const touch = phone ? { hasTouch: true, isMobile: true } : {};
    const context = await this.browser.newContext({
      locale,
      viewport: phone ? PHONE : DESKTOP,
      permissions: ["camera", "microphone"],
      acceptDownloads: true,
      ...touch,
    });
    context.setDefaultTimeout(15_000);
    const visitor = new Visitor(name, this, await context.newPage(), phone ? PHONE : DESKTOP);
    this.visitors.push(visitor);
    return visitor;
  }

  async close() {
    for (const visitor of this.visitors) {
      await visitor.page.screenshot({ path: join(this.folder, `last-${visitor.name}.png`) }).catch(() => {});
      writeFileSync(join(this.folder, `${visitor.name}.console.log`), visitor.said.join("\n"));
    }
    await this.browser.close();
    await this.server.stop();
    rmSync(this.data, { recursive: true, force: true });
  }

  /** Books on the demo's page; gives each person's link and code as the notification and the SMS tell them. */
  async book(page, service, { slot } = {}) {
    await page.locator("#service").selectOption(service);
    if (slot) await page.locator("#slot").selectOption({ index: slot });
    const answer = page.waitForResponse((response) => response.url().endsWith("/demo/rooms"));
    await page.locator("#book").click();
    const [{ room }] = await (await answer).json();
    await page.locator(`[data-sms][data-room="${room}"]`).first().waitFor();
    const roles = await page.locator(`[data-sms][data-room="${room}"]`).evaluateAll((all) => all.map((one) => one.dataset.role));
    const invitations = {};
    for (const role of roles) {
      const sms = await page.locator(`[data-sms][data-room="${room}"][data-role="${role}"] .sms-text`).innerText();
      const link = page.locator(`[data-notice][data-room="${room}"][data-role="${role}"] a`);
      invitations[role] = { link: await link.getAttribute("href"), sms, code: sms.match(/\d{6}/)[0] };
    }
    return { room, ...invitations };
  }
}

export class Visitor {
  constructor(name, counter, page, size) {
    this.name = name;
    this.counter = counter;
    this.page = page;
    this.size = size;
    this.said = [];
    page.on("console", (message) => this.said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => this.said.push(`pageerror: ${error.message}`));
  }

  /** From the link to the device check. */
  async comeIn({ link, code }) {
    await this.page.goto(link);
    await this.page.locator("#code-input").fill(code);
    await this.page.locator("#code-submit").click();
    await this.page.locator("#consent-accept").click();
    await this.page.locator("#enter-room:enabled").waitFor();
  }

  /** From the link to the waiting room. */
  async wait(invitation) {
    await this.comeIn(invitation);
    await this.page.locator("#enter-room").click();
    await this.page.locator("#waiting").waitFor();
  }

  /** The operator: signs in at the console and takes the seat of a room, up to its door. */
  async takeSeat(room) {
    await this.page.goto(`${this.counter.server.url}/operator`);
    await this.page.locator("#key").fill(this.counter.server.keys.operator);
    await this.page.locator("#sign-in").click();
    await this.page.locator(`[data-open="${room}"]`).click();
    await this.page.locator("#consent-accept").click();
    await this.page.locator("#enter-room:enabled").click();
    await this.page.locator("#operator-open").waitFor();
  }

  /** Lets whoever waits in, as they come. */
  async admit(role) {
    await this.page.locator(`[data-person][data-role="${role}"] [data-admit]`).click();
  }

  /** Everybody else in the room is seen here, by frames that were decoded. */
  async sees(count, timeout = 15_000) {
    await this.page.waitForFunction(
      (wanted) => {
        const tiles = [...document.querySelectorAll("[data-participant]:not([data-self]) video")];
        return tiles.filter((video) => video.getVideoPlaybackQuality().totalVideoFrames > 0).length >= wanted;
      },
      count,
      { timeout },
    );
  }

  /**
   * Looks at the screen in both sizes: nothing that axe-core complains of, nothing wider than the window. With
   * `languages`, pictures in the other ones too; `again` brings the screen back after the change.
   */
  async look(name, { languages = false, again } = {}) {
    await this.#picture(name, true);
    if (!languages) return;
    const shown = this.page.url();
    for (const language of ["en", "de"]) {
      const address = new URL(shown);
      address.searchParams.set("lang", language);
      await this.page.goto(address.href);
      await again();
      await this.#picture(`${name}-${language}`, false);
    }
    await this.page.goto(shown);
    await again();
  }

  /** @param {string} name @param {boolean} whole whether to have axe-core look too: it takes its time */
  async #picture(name, whole) {
    const { page } = this;
    for (const [size, viewport] of Object.entries(SIZES)) {
      await page.setViewportSize(viewport);
      // Fonts and pictures settle.
      await page.waitForTimeout(100);
      const label = `${name}-${size}`;
      await page.screenshot({ path: join(this.counter.folder, `${label}.png`), fullPage: true });
      if (whole) await this.#isAccessible(label);
      await this.#fits(label);
    }
    await page.setViewportSize(NARROWEST);
    await this.#fits(`${name}-narrowest`);
    await page.setViewportSize(this.size);
  }

  async #isAccessible(label) {
    // Evaluated by the debugger, not as a script of the page: the page's policy stays as it is.
    await this.page.evaluate(`if (!window.axe) { ${AXE} }`);
    const violations = await this.page.evaluate(async (rules) => {
      const found = await window.axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
      return found.violations.map(({ id, nodes }) => ({ id, nodes: nodes.map(({ html, failureSummary }) => ({ html: html.slice(0, 200), failureSummary })) }));
    }, RULES);
    assert.deepEqual(violations, [], `${label}: ${JSON.stringify(violations, null, 1)}`);
  }

  async #fits(label) {
    const [wide, window] = await this.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= window, `${label}: ${wide} px in a window of ${window} px`);
  }
}

/** A document that was signed: the envelope (CMS) that Italian offices know as .p7m, as `openssl` makes it. */
export async function signed(paper) {
  const folder = mkdtempSync(join(tmpdir(), "sportello-p7m-"));
  const file = (name) => join(folder, name);
  try {
    const subject = ["-subj", "/CN=Mario Rossi", "-keyout", file("key.pem"), "-out", file("certificate.pem")];
    await run("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject]);
    writeFileSync(file("paper"), paper.buffer);
    const signer = ["-signer", file("certificate.pem"), "-inkey", file("key.pem")];
    await run("openssl", ["cms", "-sign", "-binary", "-nodetach", "-outform", "DER", ...signer, "-in", file("paper"), "-out", file("p7m")]);
    return { name: `${paper.name}.p7m`, mimeType: "application/pkcs7-mime", buffer: readFileSync(file("p7m")) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Papers as a browser makes them. */
export async function papers(browser) {
  const page = await browser.newPage({ viewport: { width: 400, height: 560 } });
  await page.setContent("<h1>Modulo AA08</h1><p>Richiesta di delega dell'identità digitale</p>");
  const pdf = { name: "Modulo-AA08.pdf", mimeType: "application/pdf", buffer: await page.pdf() };
  const png = { name: "Documento.png", mimeType: "image/png", buffer: await page.screenshot() };
  const jpeg = { name: "CartaIdentitaMarioRossi.jpg", mimeType: "image/jpeg", buffer: await page.screenshot({ type: "jpeg" }) };
  await page.close();
  return { pdf, png, jpeg };
}
