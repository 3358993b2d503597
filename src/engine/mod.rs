//! The engine key, memory arithmetic and the choice of precision. Pure.
