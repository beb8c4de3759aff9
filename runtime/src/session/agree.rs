//! The greeting: every two of the three make sure that they run the same program the same way.

use marill_program::cost::HELLO_BYTES;
use marill_program::schema;

use super::Order;
use crate::correlation::Suite;
use crate::correlation::store::{StoreId, random};
use crate::error::{Role, RunError};
use crate::sharing::Party;
use crate::transport::Channel;

/// The first bytes of a greeting.
pub const MAGIC: [u8; 8] = *b"MARILL\r\n";

/// What two parties meet for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A run from setup to outputs.
    Run(Order),
    /// Setup and preprocessing, to be kept.
    Prepare,
    /// The rounds, with what was kept in the stores of this name.
    Stored(StoreId),
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Purpose::Run(Order::Streamed) => 0,
            Purpose::Prepare => 1,
            Purpose::Stored(_) => 2,
            Purpose::Run(Order::InTurn) => 3,
        }
    }
}

fn purpose_name(code: u8) -> String {
    match code {
        0 => "a whole run".to_owned(),
        1 => "preparation of a run".to_owned(),
        2 => "a run from a store".to_owned(),
        3 => "a whole run with its phases in turn".to_owned(),
        code => format!("unknown purpose {code}"),
    }
}

/// What becomes of a setup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It serves this run alone.
    Once,
    /// It is kept; the name of the one that is there.
    Kept(Option<StoreId>),
}

impl Keeping {
    fn code(self) -> u8 {
        match self {
            Keeping::Once => 0,
            Keeping::Kept(_) => 1,
        }
    }
}

fn keeping_name(code: u8) -> String {
    match code {
        0 => "made for one run".to_owned(),
        1 => "kept".to_owned(),
        code => format!("unknown {code}"),
    }
}

/// Where in a greeting the name of the store or setup stands.
const TAG: std::ops::Range<usize> = 48..64;

/// A greeting: magic, format version, role, suite, purpose, whether setup is kept, program digest, name of the store or
/// of the setup that is there or zeros.
pub struct Hello {
    version: u32,
    role: Role,
    suite: Suite,
    purpose: Purpose,
    keeping: Keeping,
    digest: [u8; 32],
}

impl Hello {
    /// The greeting of `role` for the program with `digest`; the dealer's digest is zero.
    pub fn new(role: Role, suite: Suite, digest: [u8; 32]) -> Hello {
        let (purpose, keeping) = (Purpose::Run(Order::default()), Keeping::Once);
        Hello { version: schema::VERSION, role, suite, purpose, keeping, digest }
    }

    /// The same for another purpose.
    pub fn to(self, purpose: Purpose) -> Hello {
        Hello { purpose, ..self }
    }

    /// The same of a party that does this with its setup.
    pub fn keeping(self, keeping: Keeping) -> Hello {
        Hello { keeping, ..self }
    }

    fn tag(&self) -> [u8; TAG.end - TAG.start] {
        match (self.purpose, self.keeping) {
            (Purpose::Stored(id), _) | (_, Keeping::Kept(Some(id))) => id.tag(),
            _ => [0; TAG.end - TAG.start],
        }
    }

    /// The greeting's bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES as usize] {
        let mut bytes = [0; HELLO_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12] = role_code(self.role);
        bytes[13] = self.suite.code();
        bytes[14] = self.purpose.code();
        bytes[15] = self.keeping.code();
        bytes[16..48].copy_from_slice(&self.digest);
        bytes[TAG].copy_from_slice(&self.tag());
        bytes
    }
}

fn role_code(role: Role) -> u8 {
    match role {
        Role::Client => 1,
        Role::Server => 2,
        Role::Dealer => 3,
    }
}

fn role_name(code: u8) -> String {
    let role = [Role::Client, Role::Server, Role::Dealer].into_iter().find(|role| role_code(*role) == code);
    role.map_or_else(|| format!("unknown role {code}"), |role| role.to_string())
}

fn suite_name(code: u8) -> String {
    Suite::from_code(code).map_or_else(|| format!("unknown suite {code}"), |suite| suite.name().to_owned())
}

/// As much of a digest as people compare.
fn short(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Greets the peer, and returns the digest in its greeting, and whether both have the same kept setup.
fn exchange(channel: &mut Channel, own: &Hello) -> Result<([u8; 32], bool), RunError> {
    let peer = channel.peer();
    let mut theirs = [0; HELLO_BYTES as usize];
    channel.exchange_into(&own.encode(), &mut theirs)?;
    channel.end_round();
    let differs =
        |what, ours: String, theirs: String| RunError::PeerIncompatible { peer, what, ours, theirs };
    if theirs[..8] != MAGIC {
        let found = format!("{}, it is not a marill peer", short(&theirs));
        return Err(differs("greeting", short(&MAGIC), found));
    }
    let version = u32::from_le_bytes([theirs[8], theirs[9], theirs[10], theirs[11]]);
    if version != own.version {
        return Err(differs("format version", own.version.to_string(), version.to_string()));
    }
    if theirs[12] != role_code(peer) {
        return Err(differs("role", peer.to_string(), role_name(theirs[12])));
    }
    if theirs[13] != own.suite.code() {
        return Err(differs("suite", own.suite.name().to_owned(), suite_name(theirs[13])));
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(&theirs[16..48]);
    if peer != Role::Dealer && own.role != Role::Dealer {
        same_program(peer, &own.digest, &digest)?;
    }
    if theirs[14] != own.purpose.code() {
        return Err(differs("purpose", purpose_name(own.purpose.code()), purpose_name(theirs[14])));
    }
    if theirs[15] != own.keeping.code() {
        return Err(differs("setup", keeping_name(own.keeping.code()), keeping_name(theirs[15])));
    }
    let tag = own.tag();
    let same = theirs[TAG] == tag;
    // Who keeps setups may have lost his, or have that of another peer: both make one again.
    if !same && !matches!(own.keeping, Keeping::Kept(_)) {
        return Err(differs("store", short(&tag), short(&theirs[TAG])));
    }
    Ok((digest, same && tag != [0; TAG.end - TAG.start]))
}

/// Client or server: greets the other party or the dealer, which knows no program yet. Tells whether both parties have
/// the setup that `own` names.
pub(super) fn party(channel: &mut Channel, own: &Hello) -> Result<bool, RunError> {
    exchange(channel, own).map(|(_, same)| same)
}

/// The dealer: greets a party and returns the digest of its program.
pub(super) fn dealer(channel: &mut Channel, own: &Hello) -> Result<[u8; 32], RunError> {
    exchange(channel, own).map(|(digest, _)| digest)
}

/// 32 fresh bytes, of which the client draws the first half and the server the other.
pub(super) fn draw(peer: &mut Channel, party: Party) -> Result<[u8; 32], RunError> {
    let (mut drawn, mut theirs) = ([0; 32], [0; 16]);
    let (client, server) = drawn.split_at_mut(16);
    let (own, other) = match party {
        Party::Client => (client, server),
        Party::Server => (server, client),
    };
    own.copy_from_slice(&random::<16>()?);
    peer.exchange_into(own, &mut theirs)?;
    peer.end_round();
    other.copy_from_slice(&theirs);
    Ok(drawn)
}

/// Compares the digests of two programs.
pub(super) fn same_program(peer: Role, ours: &[u8; 32], theirs: &[u8; 32]) -> Result<(), RunError> {
    same("program digest", peer, ours, theirs)
}

/// Compares two digests of `what`.
pub(super) fn same(
    what: &'static str,
    peer: Role,
    ours: &[u8; 32],
    theirs: &[u8; 32],
) -> Result<(), RunError> {
    if ours == theirs {
        return Ok(());
    }
    Err(RunError::PeerIncompatible { peer, what, ours: short(ours), theirs: short(theirs) })
}
