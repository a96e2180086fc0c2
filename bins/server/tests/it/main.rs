//! The whole server in this process: real HTTP on a real Postgres, with a backend in memory. What needs the
//! container engine or the binary itself is in [`black_box`].

#[cfg(test)]
mod black_box;
#[cfg(test)]
mod support;
#[cfg(test)]
mod workspaces;
