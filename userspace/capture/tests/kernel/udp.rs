//! Row "UDP/443 (QUIC), connected or not".

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use chaperone_capture::Counter;
use socket2::{SockAddr, Socket};

use crate::lab::{Lab, agent, outcome};

#[test]
fn quic_is_refused_at_once() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let said = agent(&agents, || {
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        let mut said = Vec::new();
        for (socket, to) in [(&v4, "127.0.0.1:443"), (&v6, "[::1]:443"), (&v6, "[::ffff:127.0.0.1]:443")] {
            said.push(outcome(socket.send_to(b"x", to)));
            said.push(outcome(socket.connect(to)));
        }
        said.push(outcome(v4.send_to(b"x", "127.0.0.1:53")));
        said.join(" ")
    })
    .said();
    assert_eq!(said, "EPERM EPERM EPERM EPERM EPERM EPERM ok");
    assert_eq!(capture.counters().get(Counter::Quic).unwrap(), 6);
}

#[test]
fn udp_443_is_refused_connected_or_not_and_by_every_call() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let said = agent(&agents, || {
        let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        elsewhere.connect("127.77.0.1:9").unwrap();
        let https = SockAddr::from("127.77.0.1:443".parse::<SocketAddr>().unwrap());
        let by_msg = |socket: &UdpSocket| {
            let socket = Socket::from(socket.try_clone().unwrap());
            outcome(socket.send_to_vectored(&[io::IoSlice::new(b"x")], &https))
        };
        [
            outcome(unconnected.send_to(b"x", "127.77.0.1:443")),
            by_msg(&unconnected),
            // Connected to somewhere else.
            outcome(elsewhere.send_to(b"x", "127.77.0.1:443")),
            by_msg(&elsewhere),
            outcome(elsewhere.connect("127.77.0.1:443")),
        ]
        .join(" ")
    });
    assert_eq!(said.said(), ["EPERM"; 5].join(" "));
    assert_eq!(capture.counters().get(Counter::Quic).unwrap(), 5);
}

/// HTTP/3's and DNS over QUIC's ports, and the metadata addresses but for the resolver there.
#[test]
fn datagrams_to_quic_ports_and_metadata_addresses_are_refused() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let said = agent(&agents, || {
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        let to = ["127.0.0.1:80", "127.0.0.1:8443", "127.0.0.1:853", "169.254.169.254:9", "169.254.170.23:80"];
        let mut said: Vec<_> = to.iter().map(|to| outcome(v4.send_to(b"x", to))).collect();
        said.push(outcome(v6.send_to(b"x", "[fd00:ec2::254]:9")));
        // There is no way there from this namespace; it wasn't the hook.
        said.push(outcome(v4.send_to(b"x", "169.254.169.254:53")));
        said.join(" ")
    });
    assert_eq!(said.said(), "EPERM EPERM EPERM EPERM EPERM EPERM ENETUNREACH");
    assert_eq!(capture.counters().get(Counter::Quic).unwrap(), 6);
}
