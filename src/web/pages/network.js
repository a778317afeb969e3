/** Whether the network lets UDP through, found out before the meeting by a question to the server (STUN). */

/** So long an answer may take over a slow network; the browser itself would ask for most of a minute. */
const PATIENCE_MS = 8_000;

/**
 * Asks from every interface that the browser has: an address that is told, or no question that is still open, is enough.
 * @param {string[]} reflectors STUN addresses of the server
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>} false: it seems that nothing comes through; true also when that cannot be told
 */
export async function letsUdpThrough(reflectors, signal) {
  if (reflectors.length === 0 || typeof RTCPeerConnection !== "function") return true;
  const pc = new RTCPeerConnection({ iceServers: [{ urls: reflectors }] });
  try {
    pc.createDataChannel("question");
    const told = new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(true), { once: true });
      pc.onicecandidate = ({ candidate }) => candidate?.type === "srflx" && resolve(true);
      pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve(true);
      setTimeout(() => resolve(false), PATIENCE_MS);
    });
    await pc.setLocalDescription();
    return await told;
  } catch {
    return true;
  } finally {
    pc.close();
  }
}
