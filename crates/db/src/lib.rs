//! Everything the workspace server keeps in Postgres, and the private Postgres it runs by default.

pub mod private;
