// A person who comes in on a second device is asked first; and the API's page can be read without any other host.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { launch, makeMedia } from "./people.mjs";
import { Server, artefacts } from "./server.mjs";

const NAMES = { operator: "Ofelia Quarantotti", delegato: "Dario Bevilacqua", delegante: "Zenobia Tagliaferri" };
const PHONE = { width: 320, height: 640 };

const folder = artefacts("entry");
const data = mkdtempSync(join(tmpdir(), "sportello-"));
let server, browser, invitation;

/** A device of its own: nothing is shared with the others. */
const device = async (viewport) => (await browser.newContext({ locale: "it-IT", viewport })).newPage();

const typeCode = async (page) => {
  await page.goto(invitation.join_url);
  await page.locator("#code-input").fill(invitation.code);
  await page.locator("#code-submit").click();
};

describe("a second device", () => {
  let first, second;

  before(async () => {
    server = await Server.start({ data, log: join(folder, "server.log") });
    browser = await launch(await makeMedia(folder, "delegato"));
    invitation = (await server.book(NAMES)).invitations.delegato;
    first = await device({ width: 1000, height: 800 });
    await typeCode(first);
    await first.locator("#consent-accept").waitFor();
    second = await device(PHONE);
  });

  test("asks before it takes over, on a phone too, and the first one goes on meanwhile", async () => {
    await typeCode(second);
    const question = second.locator("#confirm-question");
    await question.waitFor();
    assert.match(await question.innerText(), /altro dispositivo/);
    await second.screenshot({ path: join(folder, "question.png") });
    const dialog = await second.locator("dialog").boundingBox();
    assert.ok(dialog.x >= 0 && dialog.x + dialog.width <= PHONE.width, JSON.stringify(dialog));
    assert.equal(await second.evaluate(() => document.activeElement?.id), "confirm-no", "Enter alone takes nothing over");
    assert.ok(await first.locator("#consent-accept").isVisible());
  });

  test("leaves everything as it is when the person says no", async () => {
    await second.locator("#confirm-no").click();
    await second.locator("#code-input").waitFor();
    await first.reload();
    await first.locator("#consent-accept").waitFor();
  });

  test("takes over when the person says yes, and the first one is told", async () => {
    await second.locator("#code-submit").click();
    await second.locator("#confirm-yes").click();
    await second.locator("#consent-accept").waitFor();
    await first.getByRole("heading", { name: "La tua sessione è finita" }).waitFor();
    await first.screenshot({ path: join(folder, "replaced.png") });
  });
});

test("the API's page shows every operation and asks no other host for anything", async () => {
  const page = await device({ width: 1200, height: 900 });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(`${server.url}/docs`);
  const document = await (await page.request.get(`${server.url}/v1/openapi.json`)).json();
  const operations = Object.values(document.paths).flatMap((path) => Object.values(path)).length;
  await page.locator(".opblock").nth(operations - 1).waitFor();
  assert.equal(await page.locator(".opblock").count(), operations);
  await page.screenshot({ path: join(folder, "docs.png") });
  assert.deepEqual(asked.filter((url) => !url.startsWith(server.url) && !url.startsWith("data:")), []);
});

after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(data, { recursive: true, force: true });
});
