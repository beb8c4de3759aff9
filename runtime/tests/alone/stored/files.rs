//! Files that are not the store that is wanted: each a typed error, before anybody is called.

use std::fs;

use marill_runtime::correlation::store::{
    CHUNK_BYTES, HEADER_BYTES, Kind, NewStore, SealedWriter, Store, StoreKey, TAG_BYTES,
};
use marill_runtime::error::{RunError, StoreFault};
use marill_runtime::session::Origin;
use marill_runtime::sharing::Party;

use super::desk::Desk;

pub fn fault<T>(result: Result<T, RunError>) -> StoreFault {
    match result.map(|_| ()).unwrap_err() {
        RunError::Store { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

pub fn differs(fault: &StoreFault) -> &'static str {
    match fault {
        StoreFault::Differs { what, expected, found } if expected != found => what,
        other => panic!("{other}"),
    }
}

#[test]
fn stores_of_others_are_refused() {
    let (desk, other) = (Desk::of(1), Desk::of(2));
    desk.make("a");
    other.make("b");
    let program = desk.bundles.0.program();
    let open = |name: &str, party: Party| desk.open(name, party).map(drop);

    // Another key.
    let error = open("a.server", Party::Client).unwrap_err();
    assert_eq!(differs(&fault(Err::<(), _>(error))), "key");
    // The other party's, with its key.
    let error = Store::open(&desk.at("a.server"), &desk.key(Party::Server), Party::Client, program);
    let text = error.map(drop).unwrap_err().to_string();
    assert!(text.ends_with("its party does not fit: expected client, found server"), "{text}");
    // Another program's, with its key.
    let error = Store::open(&other.at("b.client"), &other.key(Party::Client), Party::Client, program);
    assert_eq!(differs(&fault(error)), "program digest");
    // A store that was opened for another program.
    let store = other.open("b.client", Party::Client).unwrap();
    let (client, _server) = marill_runtime::transport::memory_pair();
    let error = desk.admit(Party::Client).run(client, Origin::Store(Box::new(store)), &mut |_| {});
    assert_eq!(differs(&fault(error)), "program digest");
    assert!(other.at("b.client").exists());
    // No store at all.
    fs::write(desk.at("text"), "x".repeat(100)).unwrap();
    assert_eq!(differs(&fault(open("text", Party::Client))), "first bytes");
    // Another version.
    let mut bytes = fs::read(desk.at("a.client")).unwrap();
    bytes[8] += 1;
    fs::write(desk.at("new"), bytes).unwrap();
    assert_eq!(differs(&fault(open("new", Party::Client))), "version");
    assert!(matches!(open("nowhere", Party::Client), Err(RunError::File { action: "read", .. })));
}

#[test]
fn every_length_and_every_chunk_is_checked() {
    let desk = Desk::new();
    desk.make("a");
    let whole = fs::read(desk.at("a.client")).unwrap();
    let (header, chunk) = (HEADER_BYTES as usize, (CHUNK_BYTES + TAG_BYTES) as usize);
    let chunks = (whole.len() - header).div_ceil(chunk);
    assert!(chunks > 3);
    let opened = |bytes: &[u8]| {
        fs::write(desk.at("b.client"), bytes).unwrap();
        fault(desk.open("b.client", Party::Client))
    };
    let last = header + (chunks - 1) * chunk;
    let ends =
        [0, 1, header - 1, header, header + 1, header + 16, header + chunk, last, last + 1, whole.len() - 1];
    for end in ends {
        let found = opened(&whole[..end]);
        assert!(
            matches!(found, StoreFault::Length { found_bytes, expected_bytes }
                if found_bytes == end as u64 && expected_bytes > found_bytes),
            "{end}: {found}"
        );
    }
    assert!(matches!(opened(&[&whole[..], &[0]].concat()), StoreFault::Length { .. }));
    // A cut behind a chunk, with a length that fits it.
    let mut cut = whole[..header + chunk].to_vec();
    cut[header - 8..header].copy_from_slice(&CHUNK_BYTES.to_le_bytes());
    assert_eq!(opened(&cut), StoreFault::Corrupted { chunk: 1, chunks: 1 });

    let corrupted = |at: usize| StoreFault::Corrupted { chunk: at as u64 + 1, chunks: chunks as u64 };
    for at in 0..chunks {
        let end = (header + (at + 1) * chunk).min(whole.len());
        for byte in [header + at * chunk, end - 17, end - 1] {
            let mut bytes = whole.clone();
            bytes[byte] ^= 0x10;
            assert_eq!(opened(&bytes), corrupted(at), "byte {byte}");
        }
    }
    for byte in 0..header {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1;
        let found = opened(&bytes);
        let expected = match byte {
            0..20 => matches!(found, StoreFault::Differs { .. }),
            20..39 => found == corrupted(0),
            _ => matches!(found, StoreFault::Length { .. }),
        };
        assert!(expected, "byte {byte}: {found}");
    }
    // Chunks that change places, or come from another store of the same program and key.
    let mut swapped = whole.clone();
    swapped[header + chunk..header + 3 * chunk].rotate_left(chunk);
    assert_eq!(opened(&swapped), corrupted(1));
    desk.make("c");
    let other = fs::read(desk.at("c.client")).unwrap();
    let mut mixed = whole.clone();
    mixed[header + 2 * chunk..header + 3 * chunk]
        .copy_from_slice(&other[header + 2 * chunk..header + 3 * chunk]);
    assert_eq!(opened(&mixed), corrupted(2));
    fs::write(desk.at("b.client"), &whole).unwrap();
    assert!(desk.open("b.client", Party::Client).is_ok());
}

#[test]
fn nothing_of_a_store_is_in_the_clear() {
    let desk = Desk::new();
    desk.make("a");
    let bytes = fs::read(desk.at("a.client")).unwrap();
    let mut counts = [0u64; 256];
    bytes[HEADER_BYTES as usize..].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let mean = bytes.len() as f64 / 256.0;
    let chi: f64 = counts.iter().map(|count| (*count as f64 - mean).powi(2) / mean).sum();
    // 255 degrees of freedom: seven standard deviations.
    assert!((255.0 - chi).abs() < 7.0 * 510f64.sqrt(), "{chi}");
    let digest = desk.bundles.0.program().digest();
    assert!(!bytes.windows(8).any(|window| window == &digest[..8]));
}

#[test]
fn stores_and_keys_overwrite_nothing() {
    let desk = Desk::of(1);
    fs::write(desk.at("a.client"), "mine").unwrap();
    let error = NewStore::reserve(&desk.at("a.client"), desk.key(Party::Client)).map(drop).unwrap_err();
    assert!(matches!(error, RunError::File { action: "create", .. }), "{error}");
    let place = NewStore::reserve(&desk.at("nowhere/a"), desk.key(Party::Client));
    assert!(matches!(place.map(drop), Err(RunError::File { action: "create", .. })));
    let error = StoreKey::create(&desk.at("client.key")).map(drop).unwrap_err();
    assert!(matches!(error, RunError::File { action: "create", .. }), "{error}");
}

#[test]
fn keys_are_private_and_whole() {
    let desk = Desk::of(1);
    let path = desk.at("client.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for name in ["client.key", "client.key.used"] {
            assert_eq!(fs::metadata(desk.at(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = StoreKey::load(&path).map(drop).unwrap_err().to_string();
        assert!(text.ends_with("its mode does not fit: expected 600, found 640"), "{text}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let whole = fs::read_to_string(&path).unwrap();
    assert_eq!(whole.len(), 65);
    for text in [
        &whole[..10],
        &whole[..63],
        "",
        &format!("{}0", whole.trim_end()),
        &whole.replacen(&whole[5..6], "g", 1),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(differs(&fault(StoreKey::load(&path))), "content", "{text}");
    }
    fs::write(&path, whole.trim_end()).unwrap();
    assert!(StoreKey::load(&path).is_ok());
    assert!(matches!(StoreKey::load(&desk.at("none")).map(drop), Err(RunError::File { action: "read", .. })));
}

#[test]
fn tables_that_make_no_sense_are_told() {
    let desk = Desk::of(1);
    let key = desk.key(Party::Client);
    let path = desk.at("made");
    let digest = desk.bundles.0.program().digest();
    let fixed = [&digest[..], &[7; 32], &[1], &[9; 16]].concat();
    for tables in [&[][..], &[0], &[u64::MAX, 0], &[1 << 20, 0], &[2, 0, 1], &[0, 0]] {
        let tables: Vec<u8> = tables.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut file = fs::File::create(&path).unwrap();
        let length_bytes = (fixed.len() + tables.len()) as u64;
        let mut out = SealedWriter::new(&mut file, Kind::STORE, &path, &key, length_bytes).unwrap();
        out.write(&fixed).unwrap();
        out.write(&tables).unwrap();
        out.finish().unwrap();
        let found = fault(desk.open("made", Party::Client));
        assert!(matches!(found, StoreFault::Malformed { what: "table of contents", .. }), "{found}");
    }
    let mut file = fs::File::create(&path).unwrap();
    let mut out = SealedWriter::new(&mut file, Kind::STORE, &path, &key, 10).unwrap();
    out.write(&[0; 9]).unwrap();
    assert!(matches!(fault(out.finish()), StoreFault::Malformed { what: "content", .. }));
}
