//! VP8 payload descriptor and frame header (RFC 7741).
