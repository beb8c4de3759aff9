//! Several channels over one connection, through their public face.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use marill_runtime::error::{Role, RunError, TransportFault};
use marill_runtime::transport::{Channel, Lanes, Network, Phase, memory_pair, memory_pair_between};

use super::{linger, tcp_pair, timeouts};

/// Two channels with lanes of these windows.
struct Open<const N: usize> {
    whole: [Channel; 2],
    lanes: [Lanes; 2],
    channels: [[Channel; N]; 2],
}

fn open<const N: usize>(pair: (Channel, Channel), windows: [usize; N]) -> Open<N> {
    let (mut client, mut server) = pair;
    let [(lanes, channels), (other_lanes, other_channels)] = thread::scope(|scope| {
        let other = scope.spawn(|| Lanes::open(&mut server, windows).unwrap());
        [Lanes::open(&mut client, windows).unwrap(), other.join().unwrap()]
    });
    Open { whole: [client, server], lanes: [lanes, other_lanes], channels: [channels, other_channels] }
}

impl<const N: usize> Open<N> {
    /// Both ends close, and are whole again.
    fn close(self) -> [Result<Channel, RunError>; 2] {
        let Open { whole: [mut client, mut server], lanes: [lanes, others], channels: [channels, more] } =
            self;
        thread::scope(|scope| {
            let other = scope.spawn(move || others.close(&mut server, more).map(|()| server));
            let closed = lanes.close(&mut client, channels).map(|()| client);
            [closed, other.join().unwrap()]
        })
    }
}

fn bytes(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + seed) as u8).collect()
}

#[test]
fn lanes_carry_their_own_messages_and_leave_the_channel_whole_with_all_counts() {
    let shaped = || {
        let (client, server) = tcp_pair();
        let network = Network { bandwidth_bits_per_second: 4e8, rtt_seconds: 1e-3 };
        (client.shaped(network), server.shaped(network))
    };
    for pair in [memory_pair as fn() -> (Channel, Channel), tcp_pair, shaped] {
        let mut all = open(pair(), [1000, 1 << 20, 70_000]);
        let lengths = [0, 1, 999, 1000, 1001, 65_536, 300_000];
        let [left, right] = &mut all.channels;
        thread::scope(|scope| {
            for (lane, channel) in left.iter_mut().enumerate() {
                channel.meter_mut().set_phase(Phase::Preprocess);
                scope.spawn(move || {
                    for length in lengths {
                        let received = channel.exchange(&bytes(lane, length), 2 * length).unwrap();
                        assert!(received == bytes(lane + 7, 2 * length));
                        channel.end_round();
                    }
                });
            }
            for (lane, channel) in right.iter_mut().enumerate() {
                scope.spawn(move || {
                    for length in lengths {
                        let received = channel.exchange(&bytes(lane + 7, 2 * length), length).unwrap();
                        assert!(received == bytes(lane, length));
                    }
                });
            }
        });
        let [client, server] = all.close().map(Result::unwrap);
        let sent = 3 * lengths.iter().map(|length| *length as u64 + 4).sum::<u64>();
        let counts = client.meter().snapshot().preprocess;
        assert_eq!((counts.bytes_sent, counts.rounds), (sent, 21));
        assert_eq!(server.meter().snapshot().setup.bytes_received, sent);
        let (mut client, mut server) = (client, server);
        client.send(&[1, 2, 3]).unwrap();
        assert_eq!(server.recv(3).unwrap(), [1, 2, 3]);
    }
}

#[test]
fn a_lane_that_nobody_reads_holds_up_no_other() {
    let mut all = open(tcp_pair(), [10_000, 10_000]);
    let [left, right] = &mut all.channels;
    let ([calm, busy], [other_calm, other_busy]) = (left, right);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| busy.send(&bytes(5, 1_000_000)));
        for i in 0..50 {
            calm.send(&bytes(i, 5_000)).unwrap();
            assert!(other_calm.recv(5_000).unwrap() == bytes(i, 5_000));
        }
        assert!(!stuck.is_finished());
        assert!(other_busy.recv(1_000_000).unwrap() == bytes(5, 1_000_000));
        stuck.join().unwrap().unwrap();
    });
    assert!(all.close().into_iter().all(|closed| closed.is_ok()));
}

#[test]
fn a_failure_on_one_lane_ends_all_at_once() {
    let mut all = open(tcp_pair(), [1000, 1000]);
    let begin = Instant::now();
    let [left, right] = &mut all.channels;
    let ([first, second], [other_first, _]) = (left, right);
    thread::scope(|scope| {
        let waits = scope.spawn(|| second.recv(10));
        other_first.send(&[0; 7]).unwrap();
        assert!(matches!(first.recv(8), Err(RunError::PeerMisbehaved { .. })));
        let error = waits.join().unwrap().unwrap_err();
        assert!(matches!(error, RunError::Transport { source: TransportFault::Closed, .. }), "{error}");
    });
    // The other end notices as well.
    assert!(all.channels[1][1].recv(1).is_err());
    assert!(all.close().into_iter().all(|closed| closed.is_err()));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn who_stops_wakes_everybody() {
    let mut all = open(memory_pair(), [1000]);
    let stop = all.lanes[0].stopper();
    let [left, right] = &mut all.channels;
    thread::scope(|scope| {
        let waits = scope.spawn(|| left[0].recv(10));
        let sends = scope.spawn(|| right[0].send(&[0; 10_000]));
        thread::sleep(Duration::from_millis(50));
        stop();
        assert!(waits.join().unwrap().is_err());
        assert!(sends.join().unwrap().is_err());
    });
}

#[test]
fn silence_is_an_error_but_not_where_another_lane_is_heard() {
    let idle = Duration::from_millis(400);
    let mut all = open(memory_pair_between(Role::Client, Role::Server, idle), [1000, 1000]);
    let [left, right] = &mut all.channels;
    let ([patient, _], [late, chatty]) = (left, right);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                thread::sleep(idle / 4);
                chatty.send(&[1]).unwrap();
            }
            late.send(&[2]).unwrap();
        });
        assert_eq!(patient.recv(1).unwrap(), [2]);
        let error = patient.recv(1).unwrap_err();
        assert!(
            matches!(error, RunError::Transport { source: TransportFault::Silent { .. }, .. }),
            "{error}"
        );
    });
}

#[test]
fn bytes_behind_the_last_message_are_told() {
    let mut all = open(memory_pair(), [1000]);
    all.channels[0][0].send(&[1, 2, 3]).unwrap();
    let [client, server] = all.close();
    client.unwrap();
    assert!(matches!(server, Err(RunError::PeerMisbehaved { peer: Role::Client, .. })));
}

/// What a client says of a server that sends `frames` behind the opening.
fn against(frames: &'static [u8]) -> (RunError, Option<RunError>) {
    let mut client = super::against(timeouts(), |mut stream| {
        stream.write_all(&[0xff; 4]).unwrap();
        stream.write_all(frames).unwrap();
        linger(stream);
    });
    let (lanes, mut channels) = Lanes::open(&mut client, [1000, 1000]).unwrap();
    (channels[0].recv(100).unwrap_err(), lanes.misbehaviour())
}

#[test]
fn hostile_frames_are_told() {
    // No such lane; more than the window; more than a frame holds; a grant of what was not sent; an end with a length.
    let hostile: [&[u8]; 5] =
        [&[2, 1, 0, 0, 9], &[0, 0xe9, 3, 0], &[0, 1, 0, 1], &[0x80, 1, 0, 0], &[0xff, 1, 0, 0]];
    for frames in hostile {
        let (_, found) = against(frames);
        assert!(matches!(found, Some(RunError::PeerMisbehaved { peer: Role::Server, .. })), "{frames:?}");
    }
    // An end is no fault, but nothing comes behind it.
    let (error, found) = against(&[0xff, 0, 0, 0]);
    assert!(matches!(error, RunError::Transport { source: TransportFault::Closed, .. }), "{error}");
    assert!(found.is_none());
}

#[test]
fn a_peer_without_lanes_is_told() {
    let (mut client, mut server) = memory_pair();
    server.send(&[1, 2, 3]).unwrap();
    let error = Lanes::open(&mut client, [1000]).map(|_| ()).unwrap_err();
    assert!(matches!(error, RunError::PeerMisbehaved { peer: Role::Server, .. }), "{error}");
}
