//! Channels through their public face: lengths, liveness, identities, counts and shaping.

mod lanes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use marill_runtime::error::{Action, Misbehaviour, Role, RunError, TransportFault};
use marill_runtime::transport::{
    Channel, Counts, Ends, GREETING, Identity, Listener, Network, PeerCertificate, Phase, Protection,
    Timeouts, TlsIdentity, connect, memory_pair, memory_pair_between,
};

const CLIENT: Ends = Ends { me: Role::Client, peer: Role::Server };
const SERVER: Ends = Ends { me: Role::Server, peer: Role::Client };
const LOCAL: &str = "127.0.0.1:0";

fn timeouts() -> Timeouts {
    let second = Duration::from_secs(1);
    Timeouts { accept: Some(20 * second), connect: 5 * second, greet: 5 * second, idle: 20 * second }
}

/// Both outcomes, the client's first, of a client that calls a server.
fn meet(client: &Protection, server: &Protection) -> (Result<Channel, RunError>, Result<Channel, RunError>) {
    let listener = Listener::bind(LOCAL, SERVER).unwrap();
    let address = listener.address().to_string();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept(SERVER, server, &timeouts()));
        let connected = connect(&address, CLIENT, client, &timeouts());
        (connected, accepted.join().unwrap())
    })
}

fn tls(own: &Path, trusted: &Path) -> Protection {
    Protection::Tls(Box::new(TlsIdentity {
        own: Identity::load(own).unwrap(),
        trusted: PeerCertificate::load(&trusted.join("certificate.pem")).unwrap(),
    }))
}

struct Homes {
    directory: tempfile::TempDir,
}

impl Homes {
    fn new() -> Homes {
        let homes = Homes { directory: tempfile::tempdir().unwrap() };
        for name in ["client", "server", "stranger"] {
            Identity::create_in(&homes.directory.path().join(name)).unwrap();
        }
        homes
    }

    fn tls(&self, own: &str, trusted: &str) -> Protection {
        tls(&self.directory.path().join(own), &self.directory.path().join(trusted))
    }
}

fn tcp_pair() -> (Channel, Channel) {
    let (client, server) = meet(&Protection::Plain, &Protection::Plain);
    (client.unwrap(), server.unwrap())
}

fn tls_pair() -> (Channel, Channel) {
    let homes = Homes::new();
    let (client, server) = meet(&homes.tls("client", "server"), &homes.tls("server", "client"));
    (client.unwrap(), server.unwrap())
}

type Pair = fn() -> (Channel, Channel);
const PAIRS: [(&str, Pair); 3] = [("memory", memory_pair), ("tcp", tcp_pair), ("tls", tls_pair)];

/// A TCP channel of the client to a hand-written server, which has already greeted.
fn against(timeouts: Timeouts, server: impl FnOnce(TcpStream) + Send + 'static) -> Channel {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&GREETING).unwrap();
        stream.read_exact(&mut [0; GREETING.len()]).unwrap();
        server(stream);
    });
    connect(&address, CLIENT, &Protection::Plain, &timeouts).unwrap()
}

/// Keeps the connection open until the other side closes it.
fn linger(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn source(error: RunError) -> TransportFault {
    match error {
        RunError::Transport { source, .. } => source,
        other => panic!("expected a transport error, found: {other}"),
    }
}

#[test]
fn exchanges_200_mb_both_ways() {
    let data: Vec<u8> = (0..200_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, pair) in PAIRS {
        let (mut client, mut server) = pair();
        let (mine, theirs) = (&data[..200_000_000], &data[1..]);
        let begin = Instant::now();
        let (got_client, got_server) = thread::scope(|scope| {
            let other = scope.spawn(|| server.exchange(theirs, mine.len()).unwrap());
            (client.exchange(mine, theirs.len()).unwrap(), other.join().unwrap())
        });
        let seconds = begin.elapsed().as_secs_f64();
        println!("{name}: {:.2} GB/s each way", 0.2 / seconds);
        assert!(got_client == theirs && got_server == mine, "{name}");
    }
}

#[test]
fn a_message_that_flows_is_one_message() {
    let data: Vec<u8> = (0..20_000_003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, pair) in PAIRS {
        let (mut client, mut server) = pair();
        let parts = [0, 1, 70_000, 3_000_000, 0, data.len() - 3_070_001];
        let half = data.len() / 2;
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert!(server.exchange(&data[..half], data.len()).unwrap() == data, "{name}");
                let flowed = server.flow(5, 6, |flow| {
                    flow.send(vec![1, 2]);
                    let mut first = [0; 6];
                    flow.receive(&mut first)?;
                    flow.send(vec![3, 4, 5]);
                    Ok(first)
                });
                assert_eq!(flowed.unwrap(), [9; 6]);
                // One way.
                let flowed = server.flow(0, data.len(), |flow| {
                    let mut received = vec![0; data.len()];
                    received.chunks_mut(1 << 20).try_for_each(|part| flow.receive(part))?;
                    Ok(received)
                });
                assert!(flowed.unwrap() == data, "{name}");
            });
            let received = client.flow(data.len(), half, |flow| {
                let mut from = 0;
                for part in parts {
                    flow.send(data[from..from + part].to_vec());
                    from += part;
                }
                let mut received = vec![0; half];
                flow.receive(&mut received[..1])?;
                flow.receive(&mut received[1..])?;
                Ok(received)
            });
            assert!(received.unwrap() == data[..half], "{name}");
            assert_eq!(client.exchange(&[9; 6], 5).unwrap(), [1, 2, 3, 4, 5]);
            let sent = client.flow(data.len(), 0, |flow| {
                data.chunks(3_000_001).for_each(|part| flow.send(part.to_vec()));
                Ok(())
            });
            sent.unwrap();
            other.join().unwrap();
        });
        let counts = client.meter().snapshot().setup;
        let frames = [2 * (data.len() as u64 + 4) + 10, half as u64 + 4 + 9];
        assert_eq!([counts.bytes_sent, counts.bytes_received], frames);
    }
}

#[test]
fn a_flow_that_fails_closes_the_channel() {
    let (mut client, mut server) = tcp_pair();
    thread::scope(|scope| {
        let other = scope.spawn(|| server.send(&[0; 7]).and_then(|()| server.recv(9_000_000)).unwrap_err());
        let failed = client.flow(9_000_000, 8, |flow| {
            flow.send(vec![0; 4_000_000]);
            flow.receive(&mut [0; 8])
        });
        let wrong = Misbehaviour::WrongLength {
            phase: Phase::Setup,
            round: 1,
            expected_bytes: 8,
            announced_bytes: 7,
        };
        match failed.unwrap_err() {
            RunError::PeerMisbehaved { reason, .. } => assert_eq!(reason, wrong),
            other => panic!("{other}"),
        }
        assert!(matches!(source(other.join().unwrap()), TransportFault::Closed));
    });
    assert!(matches!(source(client.send(&[1]).unwrap_err()), TransportFault::AlreadyFailed));

    // What the work itself says closes it too, and does not leave the peer waiting.
    let (mut client, mut server) = tcp_pair();
    thread::scope(|scope| {
        let other = scope.spawn(|| server.recv(9_000_000).unwrap_err());
        let refused = || RunError::Exhausted { what: "patience", needed_bytes: 2, limit_bytes: 1 };
        let failed = client.flow(9_000_000, 8, |flow| {
            flow.send(vec![0; 4_000_000]);
            Err::<(), _>(refused())
        });
        assert!(matches!(failed.unwrap_err(), RunError::Exhausted { what: "patience", .. }));
        assert!(matches!(source(other.join().unwrap()), TransportFault::Closed));
    });
}

#[test]
fn exchanges_every_length_in_order() {
    // Around the staged part, the chunks and records of TLS, and the socket's buffers.
    let lengths = [0, 1, 4, 16_383, 16_384, 65_531, 65_535, 65_536, 65_537, 131_072, 1 << 20, 5_000_003];
    for (name, pair) in PAIRS {
        let (mut client, mut server) = pair();
        let make =
            |seed: usize, length: usize| -> Vec<u8> { (0..length).map(|i| (i * 31 + seed) as u8).collect() };
        thread::scope(|scope| {
            scope.spawn(|| {
                for (i, &length) in lengths.iter().enumerate() {
                    let other = lengths[lengths.len() - 1 - i];
                    assert!(server.exchange(&make(2, other), length).unwrap() == make(1, length), "{name}");
                    server.send(&make(3, length)).unwrap();
                }
            });
            for (i, &length) in lengths.iter().enumerate() {
                let other = lengths[lengths.len() - 1 - i];
                assert!(client.exchange(&make(1, length), other).unwrap() == make(2, other), "{name}");
                assert!(client.recv(length).unwrap() == make(3, length), "{name}");
            }
        });
    }
}

#[test]
fn meters_exactly() {
    for (name, pair) in PAIRS {
        let (mut client, mut server) = pair();
        let other = thread::spawn(move || {
            server.recv(10).unwrap();
            server.meter_mut().set_phase(Phase::Online);
            for length in [100, 0] {
                server.exchange(&vec![7; 3 * length], length).unwrap();
                server.end_round();
            }
            server.send(&[1, 2, 3]).unwrap();
            server.meter().snapshot()
        });
        client.meter_mut().set_label(5);
        client.send(&[0; 10]).unwrap();
        client.meter_mut().set_phase(Phase::Online);
        client.exchange(&[1; 100], 300).unwrap();
        assert_eq!(client.meter().round(), 1);
        client.end_round();
        assert_eq!(client.meter().round(), 2);
        client.meter_mut().set_label(6);
        client.exchange(&[], 0).unwrap();
        client.end_round();
        assert_eq!(client.recv_at_most(1000).unwrap(), [1, 2, 3]);
        let (mine, theirs) = (client.meter().snapshot(), other.join().unwrap());
        let counts = |bytes_sent, bytes_received, messages_sent, rounds| Counts {
            bytes_sent,
            bytes_received,
            messages_sent,
            rounds,
        };
        assert_eq!(mine.setup, counts(14, 0, 1, 0), "{name}");
        assert_eq!(mine.online, counts(108, 315, 2, 2), "{name}");
        assert_eq!(mine.phase(Phase::Preprocess), Counts::default(), "{name}");
        assert_eq!(mine.total(), counts(122, 315, 3, 2), "{name}");
        let labels: Vec<_> = mine.labels.iter().map(|l| (l.phase, l.label, l.counts)).collect();
        assert_eq!(
            labels,
            [
                (Phase::Setup, 5, counts(14, 0, 1, 0)),
                (Phase::Online, 5, counts(104, 304, 1, 1)),
                (Phase::Online, 6, counts(4, 11, 1, 1)),
            ],
            "{name}"
        );
        assert_eq!(theirs.total(), counts(315, 122, 3, 2), "{name}");
        let json = serde_json::to_value(&mine).unwrap();
        assert_eq!(json["online"]["bytes_sent"], 108, "{name}");
    }
}

#[test]
fn wrong_length_is_misbehaviour_and_closes() {
    for (name, pair) in PAIRS {
        let (mut client, mut server) = pair();
        client.meter_mut().set_phase(Phase::Online);
        client.end_round();
        server.send(&[0; 12]).unwrap();
        let error = client.recv(16).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server broke the protocol: it announced 12 bytes where online round 2 has 16 bytes",
            "{name}"
        );
        assert!(matches!(source(client.send(&[1]).unwrap_err()), TransportFault::AlreadyFailed), "{name}");
        assert!(matches!(source(server.recv(1).unwrap_err()), TransportFault::Closed), "{name}");
        assert_eq!(client.meter().snapshot().total().bytes_received, 0, "{name}");
    }
}

#[test]
fn oversized_headers_are_refused_before_any_payload() {
    let limited = |mut channel: Channel| channel.recv_at_most(1000).unwrap_err();
    let exact = |mut channel: Channel| channel.recv(1000).unwrap_err();
    let exchange = |mut channel: Channel| channel.exchange(&vec![0; 50_000_000], 1000).unwrap_err();
    let announce = |stream: TcpStream| {
        (&stream).write_all(&u32::MAX.to_le_bytes()).unwrap();
        thread::sleep(Duration::from_secs(5));
    };
    let begin = Instant::now();
    let announced_bytes = u64::from(u32::MAX);
    for (call, expected) in [
        (
            &limited as &dyn Fn(Channel) -> RunError,
            Misbehaviour::TooLong { limit_bytes: 1000, announced_bytes },
        ),
        (
            &exact,
            Misbehaviour::WrongLength {
                phase: Phase::Setup,
                round: 1,
                expected_bytes: 1000,
                announced_bytes,
            },
        ),
        (
            &exchange,
            Misbehaviour::WrongLength {
                phase: Phase::Setup,
                round: 1,
                expected_bytes: 1000,
                announced_bytes,
            },
        ),
    ] {
        match call(against(timeouts(), announce)) {
            RunError::PeerMisbehaved { peer: Role::Server, reason } => assert_eq!(reason, expected),
            other => panic!("{other}"),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
fn truncation_and_death_are_noticed_at_once() {
    for sent in [0, 3, 4, 500] {
        let mut channel = against(timeouts(), move |mut stream| {
            let mut frame = 1184u32.to_le_bytes().to_vec();
            frame.extend([9; 1184]);
            stream.write_all(&frame[..sent]).unwrap();
        });
        channel.meter_mut().set_phase(Phase::Online);
        (0..11).for_each(|_| channel.end_round());
        let begin = Instant::now();
        let error = channel.recv(1184).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert_eq!(
            error.to_string(),
            "the server closed the connection while the client waited for 1184 bytes of online round 12"
        );
    }
}

#[test]
fn death_in_a_long_exchange_wakes_both_directions() {
    for (name, pair) in &PAIRS[1..] {
        let (mut client, server) = pair();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(server);
        });
        let begin = Instant::now();
        let fault = source(client.exchange(&vec![0; 100_000_000], 100_000_000).unwrap_err());
        assert!(matches!(fault, TransportFault::Closed), "{name}: {fault}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{name}");
        killer.join().unwrap();
    }
}

#[test]
fn silence_is_an_error() {
    let short = Timeouts { idle: Duration::from_millis(200), ..timeouts() };
    let begin = Instant::now();
    let receive: fn(&mut Channel) -> RunError = |channel| channel.recv(8).unwrap_err();
    let send: fn(&mut Channel) -> RunError = |channel| channel.send(&vec![0; 100_000_000]).unwrap_err();
    let exchange: fn(&mut Channel) -> RunError =
        |channel| channel.exchange(&vec![0; 100_000_000], 8).unwrap_err();
    for call in [receive, send, exchange] {
        // A peer that neither reads nor writes.
        let error = call(&mut against(short, |stream| {
            thread::sleep(Duration::from_secs(4));
            drop(stream);
        }));
        assert!(
            error.to_string().starts_with("the server was silent for 0.2 s while the client "),
            "{error}"
        );
    }
    let (mut alone, _other) = memory_pair_between(Role::Server, Role::Dealer, Duration::from_millis(200));
    let error = alone.recv(8).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the dealer was silent for 0.2 s while the server waited for 8 bytes of setup round 1"
    );
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn nobody_there_is_an_error() {
    let free = TcpListener::bind(LOCAL).unwrap().local_addr().unwrap().to_string();
    let hasty = Timeouts { connect: Duration::from_millis(200), ..timeouts() };
    let error = connect(&free, CLIENT, &Protection::Plain, &hasty).map(|_| ()).unwrap_err();
    assert!(matches!(&error, RunError::Transport { action: Action::Connect { .. }, .. }), "{error}");
    let listener = Listener::bind(LOCAL, SERVER).unwrap();
    let waiting = Timeouts { accept: Some(Duration::from_millis(200)), ..timeouts() };
    let fault = source(listener.accept(SERVER, &Protection::Plain, &waiting).map(|_| ()).unwrap_err());
    assert!(matches!(fault, TransportFault::Silent { .. }), "{fault}");
    let error = connect("no such host", CLIENT, &Protection::Plain, &hasty).map(|_| ()).unwrap_err();
    assert!(matches!(error, RunError::Transport { .. }), "{error}");
}

#[test]
fn a_client_may_call_before_the_server_listens() {
    let free = TcpListener::bind(LOCAL).unwrap().local_addr().unwrap().to_string();
    let address = free.clone();
    let caller =
        thread::spawn(move || connect(&address, CLIENT, &Protection::Plain, &timeouts()).map(|_| ()));
    thread::sleep(Duration::from_millis(150));
    let listener = Listener::bind(&free, SERVER).unwrap();
    listener.accept(SERVER, &Protection::Plain, &timeouts()).unwrap();
    caller.join().unwrap().unwrap();
}

#[test]
fn untrusted_certificates_fail_on_both_sides() {
    let homes = Homes::new();
    let fingerprint = |name: &str| Identity::load(&homes.directory.path().join(name)).unwrap().fingerprint();
    for _ in 0..20 {
        // A server that is not the one the client trusts.
        let begin = Instant::now();
        let (client, server) = meet(&homes.tls("client", "server"), &homes.tls("stranger", "client"));
        let (client, server) = (client.map(|_| ()).unwrap_err(), server.map(|_| ()).unwrap_err());
        assert_eq!(
            client.to_string(),
            format!(
                "the certificate of the server does not fit: expected {}, found {}",
                fingerprint("server"),
                fingerprint("stranger")
            )
        );
        assert!(
            matches!(source(server), TransportFault::Refused { shown, .. } if shown == fingerprint("stranger"))
        );
        // A client that is not the one the server trusts.
        let (client, server) = meet(&homes.tls("stranger", "server"), &homes.tls("server", "client"));
        let (client, server) = (client.map(|_| ()).unwrap_err(), server.map(|_| ()).unwrap_err());
        assert!(
            client.to_string().starts_with("the server refused the tls handshake with alert "),
            "{client}"
        );
        assert!(
            matches!(source(client), TransportFault::Refused { shown, .. } if shown == fingerprint("stranger"))
        );
        assert_eq!(
            server.to_string(),
            format!(
                "the certificate of the client does not fit: expected {}, found {}",
                fingerprint("client"),
                fingerprint("stranger")
            )
        );
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn plain_and_tls_do_not_mix() {
    let homes = Homes::new();
    for (client, server) in [
        (Protection::Plain, homes.tls("server", "client")),
        (homes.tls("client", "server"), Protection::Plain),
    ] {
        let (client, server) = meet(&client, &server);
        for outcome in [client, server] {
            let error = outcome.map(|_| ()).unwrap_err();
            assert!(
                matches!(&error, RunError::PeerIncompatible { what: "protection of the connection", .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn strangers_and_mute_peers_do_not_pass_the_greeting() {
    for protection in [Protection::Plain, Homes::new().tls("client", "server")] {
        let greet = Duration::from_millis(300);
        let hasty = Timeouts { greet, ..timeouts() };
        let listener = TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let begin = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&listener.accept().unwrap().0).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
                linger(listener.accept().unwrap().0);
            });
            let error = connect(&address, CLIENT, &protection, &hasty).map(|_| ()).unwrap_err();
            assert!(
                matches!(
                    &error,
                    RunError::PeerIncompatible { what: "greeting", .. }
                        | RunError::Transport { source: TransportFault::Tls { .. }, .. }
                ),
                "{error}"
            );
            let error = connect(&address, CLIENT, &protection, &hasty).map(|_| ()).unwrap_err();
            assert!(error.to_string().starts_with("the server was silent for 0.3 s"), "{error}");
        });
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn shaping_delays_about_right() {
    for (name, pair) in PAIRS {
        let (client, server) = pair();
        // 2.5 MB at 100 Mbit/s take 200 ms, and a message half a round trip of 20 ms.
        let network: Network = "100Mbit,40ms".parse().unwrap();
        let (mut client, mut server) = (client.shaped(network), server.shaped(network));
        let big = vec![3; 2_500_000];
        // Taken before either party starts, so that the lower bounds hold however threads are scheduled.
        let begin = Instant::now();
        let other = thread::spawn(move || {
            for _ in 0..5 {
                server.exchange(&[1; 8], 8).unwrap();
            }
            assert!(server.exchange(&vec![4; 2_500_000], 2_500_000).unwrap() == vec![3; 2_500_000]);
            server.send(&[9]).unwrap();
        });
        for _ in 0..5 {
            client.exchange(&[2; 8], 8).unwrap();
        }
        let rounds = begin.elapsed().as_secs_f64();
        assert!((0.1..0.7).contains(&rounds), "{name}: {rounds} s");
        client.exchange(&big, big.len()).unwrap();
        let both = begin.elapsed().as_secs_f64();
        assert!((0.32..1.5).contains(&both), "{name}: {both} s");
        // The peer has dropped its end by now or soon; what it sent still arrives.
        assert_eq!(client.recv(1).unwrap(), [9]);
        other.join().unwrap();
        assert!(matches!(source(client.recv(1).unwrap_err()), TransportFault::Closed), "{name}");
    }
}

/// A sender may be a second ahead of what the network carries, and no more.
#[test]
fn a_shaped_sender_waits_for_the_network() {
    let (client, mut server) = memory_pair();
    let mut client = client.shaped("1Mbit,1ms".parse().unwrap());
    let begin = Instant::now();
    client.send(&[0; 100_000]).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(700), "{:?}", begin.elapsed());
    client.send(&[0; 150_000]).unwrap();
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    drop(client);
    assert_eq!(
        [server.recv(100_000).unwrap().len(), server.recv(150_000).unwrap().len()],
        [100_000, 150_000]
    );
}

#[test]
fn a_failed_shaped_channel_does_not_wait_for_its_queue() {
    let (client, mut server) = tcp_pair();
    // 100 MB at 1 Mbit/s would take 800 s.
    let mut client = client.shaped("1Mbit,1ms".parse().unwrap());
    server.send(&[0; 2]).unwrap();
    let begin = Instant::now();
    let error = client.exchange(&vec![0; 100_000_000], 1).unwrap_err();
    assert!(matches!(error, RunError::PeerMisbehaved { .. }), "{error}");
    drop(client);
    assert!(begin.elapsed() < Duration::from_secs(3));
}
