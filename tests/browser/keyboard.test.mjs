// A whole meeting without a mouse: from the link to the last document, by both.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Counter, papers } from "./meeting.mjs";

/** More stops than any screen has: beyond them something cannot be reached. */
const MOST_STOPS = 80;

/** Moves the focus by the tab key alone until it is on `selector`, and sees to it that it can be seen. */
async function to(page, selector) {
  await page.locator(selector).first().waitFor({ state: "attached" });
  for (let stop = 0; stop < MOST_STOPS; stop += 1) {
    const [there, outlined] = await page.evaluate((wanted) => {
      const focused = document.activeElement;
      if (!focused?.matches(wanted)) return [false, false];
      // The file field is drawn by its label.
      const drawn = focused.type === "file" ? focused.nextElementSibling : focused;
      return [true, getComputedStyle(drawn).outlineStyle !== "none"];
    }, selector);
    if (there) {
      assert.ok(outlined, `the focus on ${selector} cannot be seen`);
      return;
    }
    await page.keyboard.press("Tab");
  }
  assert.fail(`${selector} is not reached by the tab key`);
}

async function press(page, selector, key = "Enter") {
  await page.locator(`${selector}:not([disabled])`).first().waitFor();
  await to(page, selector);
  await page.keyboard.press(key);
}

describe("a meeting by keyboard", () => {
  let counter, booking, citizen, operator, papersOf;

  before(async () => {
    counter = await Counter.open("keyboard");
    papersOf = await papers(counter.browser);
    const desk = await counter.visitor("booking");
    await desk.page.goto(counter.server.url);
    booking = await counter.book(desk.page, "videochiamata");
    citizen = await counter.visitor("citizen");
    operator = await counter.visitor("operator");
  });
  after(() => counter?.close());

  test("the citizen comes in", async () => {
    const { page } = citizen;
    await page.goto(booking.citizen.link);
    await to(page, "#code-input");
    await page.keyboard.type(booking.citizen.code);
    await page.keyboard.press("Enter");
    await press(page, "#consent-accept");
    await press(page, "#enter-room");
    await page.locator("#waiting").waitFor();
  });

  test("the operator signs in, takes the seat, opens and lets in", async () => {
    const { page } = operator;
    await page.goto(`${counter.server.url}/operator`);
    await to(page, "#key");
    await page.keyboard.type(counter.server.keys.operator);
    await page.keyboard.press("Enter");
    await press(page, `[data-open="${booking.room}"]`);
    await press(page, "#consent-accept");
    await press(page, "#enter-room");
    await press(page, "#operator-open");
    await press(page, '[data-role="citizen"] [data-admit]');
    await operator.sees(1);
    await citizen.sees(1);
    await press(page, "[data-feature=documents]", "Space");
    await press(page, "[data-feature=chat]", "Space");
  });

  test("the citizen reads the information, writes and sends a document", async () => {
    const { page } = citizen;
    await press(page, "#info");
    await page.locator("dialog").waitFor();
    await page.keyboard.press("Escape");
    await press(page, "#toggle-chat");
    await page.locator("#chat-text").waitFor();
    await page.keyboard.type("Buongiorno");
    await page.keyboard.press("Enter");
    await page.locator("#chat-log").getByText("Buongiorno").waitFor();
    await press(page, "#toggle-documents");
    const chooser = page.waitForEvent("filechooser");
    await press(page, "#choose-files", "Space");
    await (await chooser).setFiles([papersOf.pdf]);
    await press(page, "#conforms", "Space");
    await press(page, "#send-files");
    await page.locator("#list-sent [data-document]").waitFor();
    await to(page, "#tab-sent");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.evaluate(() => document.activeElement.id), "tab-received");
    await page.keyboard.press("ArrowLeft");
    const download = page.waitForEvent("download");
    await press(page, "[data-download]");
    await download;
  });

  test("the operator registers it and concludes, with time for more", async () => {
    const { page } = operator;
    await press(page, "#toggle-documents");
    await press(page, "#list-received [data-register]");
    await page.keyboard.press("Enter");
    await page.locator("#list-received [data-document][data-state=registered]").waitFor();
    await press(page, "#documents-panel .panel-close");
    await press(page, "[data-step-id]", "Space");
    await to(page, "[name=outcome]");
    await page.keyboard.press("Space");
    await to(page, "#extension");
    await page.keyboard.type("72");
    await press(page, "#conclude");
    await page.locator("#ended").waitFor();
  });

  test("the citizen gets the receipt and sends one more", async () => {
    const { page } = citizen;
    await page.getByRole("heading", { name: "Chiamata terminata" }).waitFor();
    const chooser = page.waitForEvent("filechooser");
    await press(page, "#choose-files", "Space");
    await (await chooser).setFiles([papersOf.png]);
    await press(page, "#conforms", "Space");
    await press(page, "#send-files");
    await page.locator("#list-sent [data-document]").nth(1).waitFor();
    await to(page, "#tab-sent");
    await page.keyboard.press("End");
    const download = page.waitForEvent("download");
    await press(page, "#list-registered [data-receipt]");
    await download;
  });
});
