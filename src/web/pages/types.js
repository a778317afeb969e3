/**
 * The shapes that the server speaks (`/v1/openapi.json`), as types for the editor and for `tsc --checkJs`.
 * Nothing here runs.
 */

/** @typedef {"operator" | "delegato" | "delegante" | "citizen" | "guest"} Role */
/** @typedef {"microphone" | "camera" | "screen"} Source */
/** @typedef {"scheduled" | "waiting" | "live" | "suspended" | "concluded" | "extended" | "closed" | "cancelled" | "expired"} Phase */
/** @typedef {"granted" | "refused" | "served" | "incomplete"} Outcome */
/** @typedef {"chat" | "documents" | "sharing"} Feature */
/** @typedef {"not_writable" | "disk_full" | "write_failed" | "stalled" | "overflow"} RecordingFault */

/**
 * What a link tells before any code: no names.
 * @typedef {object} Welcome
 * @property {string} profile
 * @property {string} office
 * @property {string} counter
 * @property {string} start RFC 3339, like every time here
 * @property {string} end
 * @property {string} opens_at
 * @property {string} closes_at
 * @property {"too_early" | "open" | "documents" | "locked" | "too_late" | "cancelled" | "removed" | "over"} admission
 * @property {Role} role
 * @property {number} code_digits
 */

/**
 * @typedef {object} Person
 * @property {string} id
 * @property {Role} role
 * @property {string} name
 * @property {string | null} [fiscal_code] only the operator is told
 * @property {"expected" | "admitted" | "waiting" | "inside" | "removed"} place
 * @property {boolean} connected whether a media connection stands
 * @property {Source[]} sources what arrives from them
 * @property {Source[]} not_recorded pictures that arrive and cannot be recorded; the operator and the person are told
 * @property {string | null} waiting_since
 * @property {string | null} attested_beside whose device they share
 * @property {{camera: boolean, microphone: boolean} | null} [devices] what their device check found; the operator is told
 */

/**
 * @typedef {object} SessionView
 * @property {{id: string, profile: string, office: string, counter: string, reason: string, start: string, end: string, operator_number: string | null}} room
 * @property {{id: string, role: Role, name: string}} me
 * @property {Phase} phase
 * @property {"expected" | "admitted" | "waiting" | "inside" | "removed"} place
 * @property {{text_version: string, at: string} | null} consent
 * @property {string} consent_text_version
 * @property {boolean} opened
 * @property {string | null} live_since since when media has flowed without a break
 * @property {string | null} first_live when media flowed for the first time
 * @property {string} now
 * @property {Person[]} participants
 * @property {Role[]} missing
 * @property {boolean} flow whether media is forwarded
 * @property {{state: "off" | "starting" | "on" | "lost", fault: RecordingFault | null, durable_until: string | null}} recording
 * @property {{why: "absence", missing: Role[]} | {why: "recording", reason: RecordingFault} | null} suspended
 * @property {Feature[]} features
 * @property {Outcome | null} outcome
 * @property {Outcome[]} outcomes
 * @property {string | null} extension_until
 * @property {RTCIceServer[]} ice_servers
 * @property {string[]} reflectors
 * @property {DocumentView[]} documents
 * @property {number} chat_messages number of the newest message
 * @property {Step[]} steps the operator's checklist
 * @property {Grant | null} grant whether `granted` is possible; told to the operator of a profile that knows it
 */

/**
 * @typedef {object} DocumentView
 * @property {string} id
 * @property {string} by who sent it
 * @property {Role} by_role
 * @property {string} name
 * @property {"pdf" | "p7m" | "jpeg" | "png" | "jpg"} kind
 * @property {number} bytes
 * @property {string} sha256
 * @property {string} handed_in
 * @property {"received" | "registering" | "registered" | "deleted" | "refused"} state
 * @property {string | null} protocol number in the register, e.g. 2026/0000042
 * @property {string | null} registered_at
 */

/** @typedef {{id: string, label: Record<string, string>, done_at: string | null}} Step */
/**
 * @typedef {{state: "possible"} | {state: "not_yet", at: string} | {state: "presence", missing: Role[]}
 *   | {state: "recording"} | {state: "not_live"}} Grant
 */

/** @typedef {{number: number, participant: string, name: string, role: Role | null, at: string, text: string}} ChatMessage */

/**
 * One appointment of the day, as the operator's console lists it.
 * @typedef {object} Appointment
 * @property {string} room
 * @property {string} profile
 * @property {string} office
 * @property {string} counter
 * @property {string} reason
 * @property {string} start
 * @property {string} end
 * @property {Phase} phase
 * @property {Outcome | null} outcome
 * @property {Guest[]} participants
 */

/**
 * @typedef {object} Guest
 * @property {string} id
 * @property {Role} role
 * @property {string} name
 * @property {Person["place"]} place
 * @property {string | null} waiting_since
 * @property {{camera: boolean, microphone: boolean} | null} devices what their device check found; null: not told
 * @property {boolean} connected
 */

/**
 * @typedef {object} Slot
 * @property {string} mid m-line of our own connection
 * @property {string} participant_id
 * @property {Source} source
 */

/** @typedef {{id: number, type: "session", session: SessionView}} SessionMessage */
/** @typedef {{id: number, type: "slots", connection: string, slots: Slot[]}} SlotsMessage */

/**
 * RFC 9457 problem details, with the members that single problems add.
 * @typedef {object} ProblemBody
 * @property {string} [type]
 * @property {string} [title]
 * @property {string} [detail]
 * @property {number} [attempts_left]
 * @property {string} [opens_at]
 * @property {number} [seconds_left]
 * @property {Role[]} [missing]
 * @property {number} [longest_hours]
 * @property {string} [reason] why a document is not fit, a word that pages translate
 */

/**
 * One screen of the page. `update` is called with every new view while it is shown.
 * @typedef {object} Screen
 * @property {HTMLElement} element
 * @property {(view: SessionView) => void} [update]
 * @property {() => void} [close]
 */

/**
 * What tests read from `window.sportello`.
 * @typedef {object} Timings
 * @property {number | null} post performance.now() at the media POST
 * @property {number | null} answer when its answer was there
 * @property {number | null} connected when ICE and DTLS stood
 * @property {Record<string, number>} firstFrame by participant: first camera frame on the screen
 */

export {};
