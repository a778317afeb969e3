// The delegation by web meeting, step by step as its service page tells it: from the booking to the receipt and the 72 hours.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { Counter, papers, signed } from "./meeting.mjs";
import { until } from "./server.mjs";

describe("a delegation from the booking to the last document", () => {
  let counter, booking, delegato, delegante, operator, papersOf;

  before(async () => {
    counter = await Counter.open("delega");
    papersOf = await papers(counter.browser);
    delegato = await counter.visitor("delegato");
    delegante = await counter.visitor("delegante", { phone: true });
    operator = await counter.visitor("operator");
  });
  after(() => counter?.close());

  test("the delegato books, naming who delegates, and gets a notification with the link and an SMS with the code", async () => {
    const { page } = delegato;
    await page.goto(counter.server.url);
    await delegato.look("booking", { languages: true, again: () => page.locator("#inbox [data-sms]").first().waitFor() });
    assert.match(await page.locator("#slot option").nth(1).innerText(), /(martedì|giovedì).*(09|10|11):(00|30)/);
    await page.locator("#delegante-name").fill("Ada Fontana");
    await page.locator("#delegante-code").fill("FNTDAA40A41H501X");
    booking = await counter.book(page, "delega");
    await page.getByText(/Prenotazione confermata/).waitFor();
    assert.match(booking.delegato.sms, /\d{6}/);
    await delegato.look("booked");
  });

  test("the link tells who, when and where, and what to have ready; a wrong code costs an attempt", async () => {
    const { page } = delegato;
    await page.goto(booking.delegato.link);
    const heading = () => page.locator("#code-input").waitFor();
    await heading();
    const words = await page.locator("main").innerText();
    for (const word of ["Roma", "Deleghe", "Delegato", "SMS", "documento di identità", "moduli", "videocamera, microfono"]) assert.ok(words.includes(word), word);
    await delegato.look("welcome", { languages: true, again: heading });
    await page.locator("#code-input").fill(booking.delegato.code === "111111" ? "222222" : "111111");
    await page.locator("#code-submit").click();
    await page.getByText("Ti restano 4 tentativi.").waitFor();
    await delegato.look("wrong-code");
  });

  test("the code is taken out of the pasted SMS; the recording notice and the device check follow", async () => {
    const { page } = delegato;
    await page.locator("#code-input").fill(booking.delegato.sms);
    assert.equal(await page.locator("#code-input").inputValue(), booking.delegato.code);
    await page.locator("#code-submit").click();
    const consent = () => page.locator("#consent-accept").waitFor();
    await consent();
    await delegato.look("consent", { languages: true, again: consent });
    await page.locator("#consent-accept").click();
    const devices = () => page.locator("#enter-room:enabled").waitFor();
    await devices();
    for (const name of ["camera", "microphone", "speaker"]) assert.ok(await page.locator(`#choose-${name}`).isVisible(), name);
    await page.locator("#speaker-test").click();
    await delegato.look("devices", { languages: true, again: devices });
    await page.getByRole("button", { name: "Entra nella stanza" }).click();
    const waiting = () => page.locator("#waiting").waitFor();
    await waiting();
    await delegato.look("waiting", { languages: true, again: waiting });
    await delegante.wait(booking.delegante);
  });

  test("the operator signs in, sees who waits and whether their devices work, and takes the seat", async () => {
    const { page } = operator;
    await page.goto(`${counter.server.url}/operator`);
    const signIn = () => page.locator("#key").waitFor();
    await signIn();
    await operator.look("sign-in", { languages: true, again: signIn });
    await page.locator("#key").fill("wrong");
    await page.locator("#sign-in").click();
    await page.getByText("Questa chiave non è valida").waitFor();
    await page.locator("#key").fill(counter.server.keys.operator);
    await page.locator("#sign-in").click();
    const card = page.locator(`[data-room="${booking.room}"]`);
    const day = () => card.locator('[data-place="waiting"][data-role="delegato"][data-devices="ok"]').waitFor();
    await day();
    assert.match(await card.locator('[data-role="delegato"]').innerText(), /aspetta da 00:0\d:\d\d.*funzionano/s);
    await operator.look("day", { languages: true, again: day });
    await card.locator("[data-open]").click();
    await page.locator("#consent-accept").click();
    await page.locator("#enter-room:enabled").click();
    const door = () => page.locator("#operator-open").waitFor();
    await door();
    await operator.look("door", { languages: true, again: door });
  });

  test("the operator opens the room and lets both in, and everyone sees everyone", async () => {
    await operator.page.locator("#operator-open").click();
    await operator.admit("delegato");
    await operator.admit("delegante");
    for (const person of [operator, delegato, delegante]) await person.sees(2);
    await operator.page.locator("#recording[data-state=on]").waitFor();
    await operator.page.locator("#recording-health[data-holds=true]").getByText(/Al sicuro su disco fino alle \d/).waitFor();
    const room = () => delegato.sees(2);
    await delegato.look("room", { languages: true, again: room });
    await delegante.look("room-of-delegante");
    await operator.look("room-of-operator", { languages: true, again: () => operator.sees(2) });
  });

  test("«Vedi più info su» tells counter, reason, times, office, people and the operator's number", async () => {
    const { page } = delegato;
    await page.locator("#info").click();
    const words = await page.locator("dialog").innerText();
    for (const word of ["Deleghe", "Delega dell'identità digitale", "Data inizio", "Data fine", "Roma", "Ada Fontana", "BNCMRC85T10H501K", "OP-042"]) assert.ok(words.includes(word), word);
    await delegato.look("info");
    await page.getByRole("button", { name: "Chiudi", exact: true }).click();
  });

  test("documents appear when the operator enables them, and nothing is sent without «Conformità all'originale»", async () => {
    const { page } = delegato;
    assert.ok(await page.locator("#toggle-documents").isHidden());
    await operator.page.locator("[data-feature=documents]").check();
    await page.locator("#toggle-documents").click();
    await page.locator("#choose-files").setInputFiles([papersOf.pdf, papersOf.png]);
    assert.ok(await page.locator("#send-files").isDisabled());
    await page.locator("#conforms").check();
    await delegato.look("documents-chosen");
    await page.getByRole("button", { name: "Invia file" }).click();
    await page.locator("#list-sent [data-document]").nth(1).waitFor();
    assert.equal(await page.locator("#list-sent .label:visible").count(), 0, "no label before the register");
  });

  test("what cannot be taken is refused in plain words, and the rest goes through", async () => {
    const { page } = delegato;
    await page.locator("#choose-files").setInputFiles([
      { name: "lettera.pdf", mimeType: "application/pdf", buffer: Buffer.from("solo testo") },
      { name: "grande.png", mimeType: "image/png", buffer: Buffer.alloc(3 * 1024 * 1024 + 1) },
      { name: "tabella.xlsx", mimeType: "application/vnd.ms-excel", buffer: Buffer.from("x") },
    ]);
    await page.locator("#conforms").check();
    await page.locator("#send-files").click();
    await page.locator('[data-file="lettera.pdf"][data-state=failed]').waitFor();
    assert.match(await page.locator('[data-file="grande.png"]').innerText(), /troppo grande: al massimo 3 MB/);
    assert.match(await page.locator('[data-file="tabella.xlsx"]').innerText(), /Pdf, P7m, Jpeg o Png/);
    await delegato.look("documents-refused");
    for (const name of ["lettera.pdf", "grande.png", "tabella.xlsx"]) await page.getByRole("button", { name: `Togli ${name}` }).click();
  });

  test("files are dropped into the panel, a signed one (.p7m) among them; beside it nothing happens", async () => {
    const { page } = delegato;
    const p7m = await signed({ ...papersOf.pdf, name: "Delega-firmata.pdf" });
    const drop = (selector, { name, mimeType, buffer }) =>
      page.locator(selector).evaluate(
        (target, { name, type, bytes }) => {
          const carried = new DataTransfer();
          carried.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name, { type }));
          const moment = (what) => {
            const event = new DragEvent(what, { dataTransfer: carried, bubbles: true, cancelable: true });
            target.dispatchEvent(event);
            return { over: document.querySelector(".upload").dataset.over, prevented: event.defaultPrevented };
          };
          return { entered: moment("dragenter"), over: moment("dragover"), dropped: moment("drop") };
        },
        { name, type: mimeType, bytes: buffer.toString("base64") },
      );
    const missed = await drop(".stage", p7m);
    assert.ok(missed.dropped.prevented && missed.over.prevented, "the browser would open the file in the place of the meeting");
    assert.equal(await page.locator("[data-file]").count(), 0);
    const dropped = await drop(".upload .drop", p7m);
    assert.equal(dropped.over.over, "true", "the panel shows that a file may be dropped");
    assert.equal(dropped.dropped.over, undefined);
    await page.locator(`[data-file="${p7m.name}"][data-state=chosen]`).waitFor();
    await page.locator("#conforms").check();
    await page.locator("#send-files").click();
    const row = page.locator("#list-sent [data-document]", { hasText: p7m.name });
    await row.waitFor();
    const download = page.waitForEvent("download");
    await row.getByRole("button", { name: /Scarica/ }).click();
    const file = await download;
    assert.equal(file.suggestedFilename(), p7m.name);
    assert.deepEqual(readFileSync(await file.path()), p7m.buffer, "the signature is not touched");
  });

  test("a sent document can be downloaded, and deleted while it is not registered", async () => {
    const { page } = delegato;
    const row = page.locator("#list-sent [data-document]", { hasText: papersOf.png.name });
    const download = page.waitForEvent("download");
    await row.getByRole("button", { name: /Scarica/ }).click();
    assert.equal((await download).suggestedFilename(), papersOf.png.name);
    await row.getByRole("button", { name: /Elimina/ }).click();
    await page.locator("#confirm-yes").click();
    await row.getByText("Eliminato", { exact: true }).waitFor();
  });

  test("the operator registers a document: number, green label and receipt", async () => {
    await operator.page.locator("#toggle-documents").click();
    await operator.page.locator("#tab-received").click();
    const received = operator.page.locator("#list-received [data-document]", { hasText: papersOf.pdf.name });
    await received.getByRole("button", { name: /Protocolla/ }).click();
    await operator.look("operator-documents", {});
    await received.getByLabel("Oggetto").fill("Delega dell'identità digitale di Ada Fontana");
    await received.getByRole("button", { name: "Invia al protocollo" }).click();
    await received.getByText(/Protocollo n\. \d{4}\/\d{7}/).waitFor();

    const { page } = delegato;
    const sent = page.locator("#list-sent [data-document]", { hasText: papersOf.pdf.name });
    await sent.getByText("Protocollato", { exact: true }).waitFor();
    assert.equal(await sent.locator(".label").evaluate((label) => getComputedStyle(label).backgroundColor), "rgb(0, 128, 85)");
    assert.ok(await sent.locator("[data-delete]").isHidden(), "registered documents stay");
    const panel = async () => {
      await page.locator("#toggle-documents").click();
      await page.locator("#list-sent [data-document]").first().waitFor();
    };
    await delegato.look("documents-sent", { languages: true, again: panel });
    await page.locator("#tab-registered").click();
    const download = page.waitForEvent("download");
    await page.locator("#list-registered [data-receipt]").click();
    const receipt = await download;
    assert.match(receipt.suggestedFilename(), /^ricevuta-.*\.pdf$/);
    await receipt.saveAs(`${counter.folder}/receipt.pdf`);
    await delegato.look("documents-registered");
  });

  test("the operator sends a document, and the delegato finds it under «Ricevuti»", async () => {
    await operator.page.locator("#choose-files").setInputFiles([papersOf.jpeg]);
    await operator.page.locator("#conforms").check();
    await operator.page.locator("#send-files").click();
    const { page } = delegato;
    await page.locator("#tab-received").click();
    await page.locator("#list-received [data-document]", { hasText: papersOf.jpeg.name }).waitFor();
    const download = page.waitForEvent("download");
    await page.locator("#list-received [data-download]").click();
    assert.equal((await download).suggestedFilename(), papersOf.jpeg.name);
  });

  test("the operator ticks the steps off and grants when the rule has held for long enough", async () => {
    const { page } = operator;
    await page.locator("#toggle-documents").click();
    const steps = page.locator("[data-step-id]");
    assert.ok((await steps.count()) > 0);
    for (const step of await steps.all()) await step.check();
    await page.locator("#grant[data-state=possible]").waitFor();
    await operator.look("operator-steps");
    await page.locator("#outcome-granted").check();
    await page.locator("#extension").selectOption("72");
    await page.locator("#conclude").click();
    await page.locator("#ended").waitFor();
    await operator.look("operator-ended");
  });

  test("«Chiamata terminata», and «Questa pagina sarà disponibile altre 72 ore», also after a reload", async () => {
    const { page } = delegato;
    const ended = () => page.getByText("Questa pagina sarà disponibile altre 72 ore").or(page.locator("#extended")).first().waitFor();
    await page.getByRole("heading", { name: "Chiamata terminata" }).waitFor();
    await page.getByText("Questa pagina sarà disponibile altre 72 ore").waitFor();
    await delegato.look("ended", { languages: true, again: ended });
    await page.locator("#choose-files").setInputFiles([papersOf.jpeg]);
    await page.locator("#conforms").check();
    await page.locator("#send-files").click();
    await page.locator("#list-sent [data-document]", { hasText: papersOf.jpeg.name }).waitFor();
    await delegante.page.getByRole("heading", { name: "Chiamata terminata" }).waitFor();
    await delegante.look("ended-of-delegante");
  });

  test("the operator registers the late document too", async () => {
    const { page } = operator;
    await page.locator("#tab-received").click();
    const late = page.locator("#list-received [data-document]", { hasText: papersOf.jpeg.name });
    await late.getByRole("button", { name: /Protocolla/ }).click();
    await late.getByRole("button", { name: "Invia al protocollo" }).click();
    await delegato.page.locator("#list-sent [data-document]", { hasText: papersOf.jpeg.name }).getByText("Protocollato", { exact: true }).waitFor();
    const { outcome } = await until("the outcome is kept", () => counter.server.room(booking.room));
    assert.equal(outcome, "granted");
  });

  test("no page complained on its console", () => {
    for (const { name, said } of [delegato, delegante, operator]) {
      const errors = said.filter((line) => /^(pageerror|error):/.test(line) && !/status of 4\d\d|ERR_|WebSocket/.test(line));
      assert.deepEqual(errors, [], name);
    }
  });
});
