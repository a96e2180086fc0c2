//! What the `workspace-server` binary is made of: wiring ([`mws_app`]) joined with HTTP ([`mws_http_api`]).

mod serve;

pub use serve::{api, serve};
