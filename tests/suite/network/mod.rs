//! The network as a value, evaluated by the interpreter: against `transformers`, against itself in
//! other pieces, and with wrong operands.

mod models;
mod operands;
mod pieces;
mod reference;
