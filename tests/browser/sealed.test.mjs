// The session copy of a sealed call, in which someone dropped and came back, by the tests of any session copy.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { run } from "./original.mjs";
import { LOADTEST, Server, artefacts, until } from "./server.mjs";

const TESTS = fileURLToPath(new URL("session.test.mjs", import.meta.url));
/** A debug build: the limits are not those of a machine that serves. */
const CALL = "call --rooms 1 --duration 12s --reconnect 4s --max-join 10s --max-first-media 10s --max-loss 1".split(" ");

const folder = artefacts("sealed");
const data = mkdtempSync(join(tmpdir(), "sportello-"));
let server, session;

describe("the package of a call in which someone dropped and came back", () => {
  before(async () => {
    server = await Server.start({ data, log: join(folder, "server.log") });
    const called = await run(LOADTEST, [...CALL, "--url", server.url], { env: { ...process.env, SPORTELLO_BOOKING_KEY: server.keys.booking } });
    assert.equal(called.status, 0, called.stdout + called.stderr);
    const packages = join(data, "packages");
    const names = () => (existsSync(packages) ? readdirSync(packages) : []);
    const sealed = () => names().map((name) => join(packages, name)).find((path) => existsSync(join(path, "manifest.jws")));
    session = join(await until("the package is sealed", sealed, 90_000), "session.webm");
  });

  after(async () => {
    await server?.stop();
    rmSync(data, { recursive: true, force: true });
  });

  test("has a session copy that plays from end to end and seeks", async () => {
    // A test runner within a test runner would report to the outer one.
    const { NODE_TEST_CONTEXT, ...env } = { ...process.env, SESSION_WEBM: session };
    const { status, stdout, stderr } = await run(process.execPath, ["--test", TESTS], { env });
    writeFileSync(join(folder, "session.log"), stdout + stderr);
    assert.equal(status, 0, stdout + stderr);
  });
});
