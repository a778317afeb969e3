// The video counter, step by step as its tutorial tells it, by a citizen with a telephone: from the booking to the 72 hours.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Counter, PHONE, papers } from "./meeting.mjs";
import { until } from "./server.mjs";

describe("an appointment by video call from the booking to the last document", () => {
  let counter, booking, portal, citizen, operator, papersOf;

  before(async () => {
    counter = await Counter.open("videochiamata");
    papersOf = await papers(counter.browser);
    portal = await counter.visitor("portal");
    citizen = await counter.visitor("citizen", { phone: true });
    operator = await counter.visitor("operator");
    await portal.page.goto(counter.server.url);
  });
  after(() => counter?.close());

  test("1, 2. the citizen finds the date and the link under «Scadenze» of the notification centre", async () => {
    const { page } = portal;
    await page.locator("#service").selectOption("videochiamata");
    assert.ok((await page.locator("#place option").allInnerTexts()).some((text) => text.includes("Crema")));
    await portal.look("booking");
    booking = await counter.book(page, "videochiamata");
    const notices = await page.locator("#notices").innerText();
    for (const word of ["Centro notifiche", "Scadenze", "appuntamento in videochiamata", "Utilizza il servizio"]) assert.ok(notices.includes(word), word);
  });

  test("too early, the code is not lost: the page tells when to come back", async () => {
    const later = await counter.book(portal.page, "videochiamata", { slot: 12 });
    await portal.page.goto(later.citizen.link);
    await portal.page.locator("#code-input").fill(later.citizen.code);
    await portal.page.locator("#code-submit").click();
    await portal.page.locator("#problem[data-slug=too-early]").getByText(/È ancora presto: potrai entrare da/).waitFor();
    await portal.look("too-early");
  });

  test("the code is locked after five wrong ones, and the page says what to do", async () => {
    await portal.page.goto(counter.server.url);
    const other = await counter.book(portal.page, "videochiamata");
    await portal.page.goto(other.citizen.link);
    const wrong = other.citizen.code === "111111" ? "222222" : "111111";
    for (let at = 0; at < 5; at += 1) {
      const answer = portal.page.waitForResponse((response) => response.request().method() === "POST");
      await portal.page.locator("#code-input").fill(wrong);
      await portal.page.locator("#code-submit").click();
      await answer;
    }
    await portal.page.getByText("Il codice è stato bloccato").waitFor();
    await portal.look("locked");
    await portal.page.goto(`${counter.server.url}/join/${"x".repeat(43)}`);
    await portal.page.getByRole("heading", { name: "Questo link non è valido" }).waitFor();
    await portal.look("unknown-link");
  });

  test("3. when the devices do not work, the page tells how to mend it", async () => {
    const { page } = citizen;
    await page.addInitScript(() => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        const name = sessionStorage.getItem("test.trouble");
        if (name) throw new DOMException("for the test", name);
        return real(wanted);
      };
    });
    await page.goto(booking.citizen.link);
    await page.locator("#code-input").fill(booking.citizen.code);
    await page.locator("#code-submit").click();
    await page.locator("#consent-decline").click();
    await page.getByRole("heading", { name: /Senza registrazione/ }).waitFor();
    await citizen.look("declined");
    await page.getByRole("button", { name: "Leggi di nuovo l’informativa" }).click();
    await page.evaluate(() => sessionStorage.setItem("test.trouble", "NotAllowedError"));
    await page.locator("#consent-accept").click();
    await page.getByText("Il browser non ha il permesso.").waitFor();
    await citizen.look("devices-denied");
    for (const [name, words] of [["NotReadableError", "Un altro programma sta usando il dispositivo."], ["NotFoundError", "Non è stato trovato nessun dispositivo."], ["UnknownError", "Il dispositivo non risponde."]]) {
      await page.evaluate((trouble) => sessionStorage.setItem("test.trouble", trouble), name);
      await page.locator("#devices-retry").click();
      await page.getByText(words).waitFor();
    }
    assert.ok(await page.locator("#enter-anyway").isVisible());
    await page.evaluate(() => sessionStorage.removeItem("test.trouble"));
    await page.locator("#devices-retry").click();
    await page.locator("#enter-room:enabled").waitFor();
  });

  test("4. in attesa: the citizen is told that they will be let in soon, and is", async () => {
    const { page } = citizen;
    await page.getByRole("button", { name: "Entra nella stanza" }).click();
    await page.getByRole("heading", { name: "Presto verrai accolto" }).waitFor();
    await citizen.look("waiting");
    await operator.takeSeat(booking.room);
    await operator.page.locator("#operator-open").click();
    await operator.admit("citizen");
    await citizen.sees(1);
    await operator.sees(1);
    assert.match(await page.locator("#elapsed").innerText(), /^00:00:\d\d$/);
    await page.locator("#recording[data-state=on]").waitFor();
    await citizen.look("room");
    for (const name of ["#toggle-documents", "#toggle-chat"]) assert.ok(await page.locator(name).isHidden(), `${name} before it is enabled`);
    await page.locator("#info").click();
    const words = await page.locator("dialog").innerText();
    for (const word of ["Sportello", "Indennità e ammortizzatori sociali", "Motivazione", "Richiesta maggiori informazioni", "Data inizio", "Data fine", "Sede", "Roma", "Luca Moretti", "MRTLCU79A01L219P", "Operatore", "OP-042"]) assert.ok(words.includes(word), word);
    await citizen.look("info");
    await page.locator("dialog").getByRole("button", { name: "Chiudi" }).click();
  });

  test("4.1 chat: the tab comes when the operator enables it, and messages go both ways", async () => {
    const { page } = citizen;
    await operator.page.locator("[data-feature=chat]").check();
    await page.locator("#toggle-chat").click();
    await page.locator("#chat-text").fill("Buongiorno, ecco i miei documenti");
    await page.getByRole("button", { name: "Invia", exact: true }).click();
    await operator.page.locator("#toggle-chat .badge").waitFor();
    await operator.page.locator("#toggle-chat").click();
    await operator.page.locator("#chat-log").getByText("Buongiorno, ecco i miei documenti").waitFor();
    await operator.page.locator("#chat-text").fill("Grazie! <b>Li guardo</b>");
    await operator.page.keyboard.press("Enter");
    await page.locator("#chat-log").getByText("Grazie! <b>Li guardo</b>").waitFor();
    const panel = async () => {
      await page.locator("#toggle-chat").click();
      await page.locator("#chat-log [data-message]").nth(1).waitFor();
    };
    await citizen.look("chat", { languages: true, again: panel });
    await operator.look("operator-chat");
    await page.locator("#toggle-chat").click();
  });

  test("4.2 documents: selected, declared to conform, sent, received", async () => {
    const { page } = citizen;
    await operator.page.locator("#toggle-chat").click();
    await operator.page.locator("[data-feature=documents]").check();
    await page.locator("#toggle-documents").click();
    await page.getByText("Puoi caricare Pdf, P7m, Jpeg, Png (massimo 3 MB").waitFor();
    await page.locator("#choose-files").setInputFiles([papersOf.jpeg, papersOf.pdf]);
    assert.ok(await page.locator("#send-files").isDisabled());
    await page.getByLabel(/Conformità all’originale/).check();
    await citizen.look("documents-chosen");
    await page.locator("#send-files").click();
    await page.locator("#list-sent [data-document]").nth(1).waitFor();
    await operator.page.locator("#toggle-documents").click();
    await operator.page.locator("#choose-files").setInputFiles([papersOf.png]);
    await operator.page.locator("#conforms").check();
    await operator.page.locator("#send-files").click();
    await page.locator("#tab-received").click();
    await page.locator("#list-received [data-document]", { hasText: papersOf.png.name }).waitFor();
    await citizen.look("documents-received");
  });

  test("4.3 the register: labels, number and receipt", async () => {
    const { page } = citizen;
    await operator.page.locator("#tab-received").click();
    const received = operator.page.locator("#list-received [data-document]", { hasText: papersOf.pdf.name });
    await received.getByRole("button", { name: /Protocolla/ }).click();
    await received.getByRole("button", { name: "Invia al protocollo" }).click();
    await page.locator("#tab-registered").click();
    await page.locator("#list-registered").getByText(/Protocollo n\. \d{4}\/\d{7}/).waitFor();
    const download = page.waitForEvent("download");
    await page.locator("#list-registered [data-receipt]").click();
    await download;
    await page.locator("#tab-sent").click();
    await page.locator("#list-sent [data-document]", { hasText: papersOf.jpeg.name }).getByRole("button", { name: /Elimina/ }).click();
    await page.locator("#confirm-yes").click();
    await page.locator("#list-sent [data-state=deleted] .label").waitFor();
    await citizen.look("documents-labels");
    const colour = (state) => page.locator(`#list-sent [data-state=${state}] .label`).evaluate((label) => getComputedStyle(label).backgroundColor);
    assert.equal(await colour("registered"), "rgb(0, 128, 85)");
    assert.equal(await colour("deleted"), "rgb(204, 51, 77)");
  });

  test("the citizen shares a screen while the operator allows it, and it is seen whose it is", async () => {
    const { page } = citizen;
    await page.locator("#toggle-documents").click();
    assert.ok(await page.locator("#share").isHidden(), "before it is enabled");
    await operator.page.locator("#toggle-documents").click();
    const allowed = operator.page.locator("[data-feature=sharing]");
    await allowed.check();
    await page.getByRole("button", { name: "Condividi" }).click();
    await page.getByText("Stai condividendo il tuo schermo.").waitFor();
    const screen = operator.page.locator("[data-screen]");
    await screen.getByText("Schermo di Luca Moretti").waitFor();
    const frames = () => screen.locator("video").evaluate((video) => video.getVideoPlaybackQuality().totalVideoFrames);
    await until("the screen is seen", async () => (await frames()) > 5);
    const size = (video) => video.evaluate(({ videoWidth, videoHeight }) => `${videoWidth} × ${videoHeight}`);
    const camera = operator.page.locator("[data-participant]:not([data-self]) video");
    assert.notEqual(await size(screen.locator("video")), await size(camera), "a screen's picture, not the camera's");
    await citizen.sees(1);
    await operator.look("sharing-of-operator");
    await citizen.look("sharing");
    await page.getByRole("button", { name: "Smetti di condividere" }).click();
    await screen.waitFor({ state: "detached" });
    await page.getByText("Stai condividendo il tuo schermo.").waitFor({ state: "hidden" });

    await page.getByRole("button", { name: "Condividi" }).click();
    await screen.waitFor();
    await allowed.uncheck();
    await page.locator("#share").waitFor({ state: "hidden" });
    await screen.waitFor({ state: "detached" });
    await operator.page.locator("#toggle-documents").click();
  });

  test("the citizen may switch off what is seen and heard, leave and come back; the operator sees who waits over the documents", async () => {
    const { page } = citizen;
    await page.locator("#toggle-microphone").click();
    await page.getByRole("button", { name: "Microfono spento" }).waitFor();
    await page.locator("#toggle-camera").click();
    await page.locator("#leave").click();
    await page.locator("#left").waitFor();
    await citizen.look("left");
    await operator.page.locator("#status").getByText(/manca|interrotto/i).waitFor();
    await operator.look("operator-missing");
    assert.ok(await operator.page.locator("#waits").isHidden());
    await page.locator("#rejoin").click();
    await page.locator("#enter-room:enabled").click();
    await page.locator("#waiting").waitFor();
    assert.ok(await operator.page.locator("#documents-panel").isVisible(), "the documents are still looked at");
    await operator.page.locator("#waits").getByText("Luca Moretti (Cittadino) aspetta di entrare.").waitFor();
    assert.equal(await operator.page.locator("#announce").innerText(), "Luca Moretti (Cittadino) aspetta di entrare.");
    await operator.look("operator-waits");
    await operator.page.getByRole("button", { name: "Accogli Luca Moretti" }).click();
    await page.locator("#room").waitFor();
    await operator.page.locator("#waits").waitFor({ state: "hidden" });
    assert.equal(await operator.page.evaluate(() => document.activeElement.id), "documents-heading", "the focus is not lost");
    await operator.page.locator("#toggle-documents").click();
  });

  test("4.4 «Chiamata terminata», with 72 hours for what is missing", async () => {
    const { page } = citizen;
    await operator.page.locator("#outcome-served").check();
    await operator.page.locator("#extension").selectOption("72");
    await operator.page.locator("#conclude").click();
    await page.getByRole("heading", { name: "Chiamata terminata" }).waitFor();
    await page.getByText("Questa pagina sarà disponibile altre 72 ore").waitFor();
    await page.reload();
    await page.getByText("Questa pagina sarà disponibile altre 72 ore").waitFor();
    await page.locator("#choose-files").setInputFiles([papersOf.png]);
    await page.locator("#conforms").check();
    await page.locator("#send-files").click();
    await page.locator("#list-sent [data-document]", { hasText: papersOf.png.name }).waitFor();
    await citizen.look("ended");
    assert.equal(page.viewportSize().width, PHONE.width);
  });

  test("no page complained on its console", () => {
    for (const { name, said } of [citizen, operator, portal]) {
      const errors = said.filter((line) => /^(pageerror|error):/.test(line) && !/status of 4\d\d|ERR_|WebSocket/.test(line));
      assert.deepEqual(errors, [], name);
    }
  });
});
