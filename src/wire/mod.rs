//! Request and response shapes of the HTTP APIs, and their stream encodings. No I/O.
