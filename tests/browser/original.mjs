// Reads a recorded file with programs that we did not write: ffprobe, ffmpeg, mkvmerge.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** Runs a program; gives its output, also when it fails. */
export async function run(program, args, options = {}) {
  try {
    return { status: 0, ...(await execute(program, args, { maxBuffer: 1 << 28, ...options })) };
  } catch (error) {
    if (error.stdout === undefined || typeof error.code !== "number") throw error;
    return { status: error.code, stdout: error.stdout, stderr: error.stderr };
  }
}

/** What ffprobe says of the streams, and where their packets begin and end, in seconds. */
export async function probe(file) {
  const { status, stdout, stderr } = await run("ffprobe", ["-v", "error", "-show_streams", "-show_packets", "-of", "json", file]);
  const { streams = [], packets = [] } = status === 0 ? JSON.parse(stdout) : {};
  const spans = streams.map((stream) => {
    const own = packets.filter((packet) => packet.stream_index === stream.index);
    const begins = own.map((packet) => Number(packet.pts_time));
    const ends = own.map((packet) => Number(packet.pts_time) + Number(packet.duration_time ?? 0));
    return { codec: stream.codec_name, packets: own.length, begin: Math.min(...begins), end: Math.max(...ends) };
  });
  return { status, complaints: stderr.trim(), spans };
}

/** Decodes everything; gives what ffmpeg complained about. */
export async function decode(file) {
  const { status, stderr } = await run("ffmpeg", ["-v", "error", "-i", file, "-f", "null", "-"]);
  return { status, complaints: stderr.trim() };
}

/** What the file says it is, and mkvmerge's opinion of the container. */
export async function container(file) {
  const { stdout } = await run("mkvmerge", ["-J", file]);
  const { container, errors, warnings } = JSON.parse(stdout);
  // The EBML element DocType (0x4282), a string (RFC 8794, section 11.2.6); mkvmerge does not tell it.
  const header = readFileSync(file).subarray(0, 64).toString("latin1");
  const docType = header.match(/\x42\x82[\x80-\xff]([a-z]+)/)?.[1] ?? null;
  return { docType, supported: container.supported, complaints: [...errors, ...warnings] };
}

/** Mean colour of each second's picture. */
export async function colours(file) {
  const { stdout } = await run(
    "ffmpeg",
    ["-v", "error", "-i", file, "-map", "0:v", "-vf", "fps=1,scale=1:1:flags=area", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
    { encoding: "buffer" },
  );
  return Array.from({ length: Math.floor(stdout.length / 3) }, (_, second) => [...stdout.subarray(3 * second, 3 * second + 3)]);
}

const RATE = 16_000;

/** Power of each frequency in each whole second of sound, in decibels. */
export async function tones(file, frequencies) {
  const { stdout } = await run(
    "ffmpeg",
    ["-v", "error", "-i", file, "-map", "0:a", "-ac", "1", "-ar", String(RATE), "-f", "f32le", "-"],
    { encoding: "buffer" },
  );
  const samples = new Float32Array(stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + 4 * Math.floor(stdout.length / 4)));
  const seconds = Math.floor(samples.length / RATE);
  return Array.from({ length: seconds }, (_, second) => {
    const window = samples.subarray(second * RATE, (second + 1) * RATE);
    return Object.fromEntries(frequencies.map((hertz) => [hertz, 10 * Math.log10(goertzel(window, hertz) + 1e-12)]));
  });
}

/** Power of one frequency in a window, by the Goertzel algorithm. */
function goertzel(window, hertz) {
  const factor = 2 * Math.cos((2 * Math.PI * hertz) / RATE);
  let [last, beforeLast] = [0, 0];
  for (const sample of window) [last, beforeLast] = [sample + factor * last - beforeLast, last];
  return (last * last + beforeLast * beforeLast - factor * last * beforeLast) / (window.length / 2) ** 2;
}
