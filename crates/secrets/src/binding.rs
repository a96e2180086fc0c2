/// What a sealed value is bound to: moved to another row, it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    scope: &'static str,
    owner: &'a str,
    name: &'a str,
}

const DOMAIN: &str = "mws.secret";

impl<'a> Binding<'a> {
    /// A secret of one workspace: `owner` is its hyphenated UUID (compared in lower case), `name` the key.
    #[must_use]
    pub const fn workspace(owner: &'a str, name: &'a str) -> Self {
        Self { scope: "workspace", owner, name }
    }

    /// A secret shared by all workspaces: `name` is the key.
    #[must_use]
    pub const fn global(name: &'a str) -> Self {
        Self { scope: "global", owner: "", name }
    }

    /// The bearer that the platform presents to one workspace: `owner` is its hyphenated UUID.
    #[must_use]
    pub const fn inbound(owner: &'a str) -> Self {
        Self { scope: "inbound", owner, name: "platform_inbound_secret" }
    }

    /// The associated data: the envelope's header, then each part behind its 2-byte big-endian length. `None`
    /// when a part is longer than that length can say.
    pub(crate) fn associated_data(&self, header: &[u8]) -> Option<Vec<u8>> {
        let owner = self.owner.to_ascii_lowercase();
        let parts = [DOMAIN, self.scope, &owner, self.name];
        let mut data =
            Vec::with_capacity(header.len() + parts.iter().map(|part| 2 + part.len()).sum::<usize>());
        data.extend_from_slice(header);
        for part in parts {
            data.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        Some(data)
    }
}
