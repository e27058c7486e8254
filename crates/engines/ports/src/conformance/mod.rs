//! The promises of the ports, as tests that any engine runs.
//!
//! Each suite takes a way to make a fresh engine, drives it with random commands, and compares every answer with a
//! plain model that is obviously right. An engine is right when it passes; a promise that no suite tries is no promise.
