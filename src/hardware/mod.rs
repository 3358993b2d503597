//! Which machine this is and what fits into it. Pure, but for `probe`, its only I/O.
