//! Messages of the DHT (BEP 5, BEP 32, BEP 42, BEP 43). Invariant: whatever a datagram says, what is read of it is bounded, and
//! reading it never panics.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::binding;
use super::id::Id;
use crate::bencode::{Encoder, Node};

/// Longest datagram that is read, bytes: what fits into a packet.
pub(super) const MAX_DATAGRAM: usize = 1_500;
/// Longest transaction and token that are given back to whoever chose them.
const MAX_TRANSACTION: usize = 32;
const MAX_TOKEN: usize = 64;
/// Most nodes and peers that are read of an answer.
const MAX_NODES: usize = 16;
const MAX_VALUES: usize = 100;

/// Errors of BEP 5.
pub(super) const GENERIC: u16 = 201;
pub(super) const PROTOCOL: u16 = 203;
pub(super) const UNKNOWN_METHOD: u16 = 204;

/// A node, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) id: Id,
    pub(super) address: SocketAddr,
}

impl Contact {
    /// Whether its id fits its address (BEP 42).
    pub(super) fn fits(self) -> bool {
        binding::fits(self.id, self.address)
    }
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Chosen by who asks.
    pub(super) transaction: Vec<u8>,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Query {
        id: Id,
        /// The sender answers no questions (BEP 43).
        read_only: bool,
        query: Query,
    },
    Response(Response),
    Error(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Ping,
    FindNode(Id),
    GetPeers(Id),
    Announce {
        info_hash: Id,
        /// `None`: the one that the datagram came from.
        port: Option<u16>,
        token: Vec<u8>,
    },
    /// A method that we don't know.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) id: Id,
    /// Nodes of both families.
    pub(super) nodes: Vec<Contact>,
    /// Peers.
    pub(super) values: Vec<SocketAddr>,
    pub(super) token: Option<Vec<u8>>,
    /// Where the question came from, as its receiver saw it (BEP 42). It stands beside the other values.
    pub(super) asker: Option<SocketAddr>,
}

impl Response {
    pub(super) fn of(id: Id) -> Self {
        Self {
            id,
            nodes: Vec::new(),
            values: Vec::new(),
            token: None,
            asker: None,
        }
    }
}

/// Why a datagram can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no message; nobody is told.
    Garbage,
    /// A question that breaks the protocol: its sender is told so, under its transaction.
    BadQuery(Vec<u8>),
}

impl Message {
    pub(super) fn decode(datagram: &[u8]) -> Result<Self, Refused> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(Refused::Garbage);
        }
        // Some put bytes behind the message.
        let (root, _) = Node::parse_prefix(datagram).map_err(|_| Refused::Garbage)?;
        let transaction = bytes(get_in(&root, "t"), MAX_TRANSACTION).ok_or(Refused::Garbage)?;
        let kind = bytes(get_in(&root, "y"), 1).ok_or(Refused::Garbage)?;
        let body = match kind.as_slice() {
            b"q" => {
                let refused = || Refused::BadQuery(transaction.clone());
                let method = bytes(get_in(&root, "q"), 32).ok_or_else(refused)?;
                let arguments = get_in(&root, "a").ok_or_else(refused)?;
                let id = id(get_in(&arguments, "id")).ok_or_else(refused)?;
                let read_only = get_in(&root, "ro").and_then(|n| n.as_integer()) == Some(1);
                let query = query(&method, &arguments).ok_or_else(refused)?;
                Body::Query {
                    id,
                    read_only,
                    query,
                }
            }
            b"r" => {
                let values = get_in(&root, "r").ok_or(Refused::Garbage)?;
                let mut response = response(&values).ok_or(Refused::Garbage)?;
                let asker = get_in(&root, "ip").and_then(|n| n.as_bytes());
                response.asker = asker.and_then(from_compact);
                Body::Response(response)
            }
            b"e" => {
                let list = get_in(&root, "e").and_then(|n| n.as_list());
                let code = list.and_then(|mut l| l.next()).and_then(|n| n.as_integer());
                Body::Error(code.and_then(|c| u16::try_from(c).ok()).unwrap_or(GENERIC))
            }
            _ => return Err(Refused::Garbage),
        };
        Ok(Self { transaction, body })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Encoder::encode(|root| match &self.body {
            Body::Query {
                id,
                read_only,
                query,
            } => {
                root.string("a")
                    .dictionary(|a| encode_arguments(a, *id, query));
                root.string("q").string(match query {
                    Query::Ping => "ping",
                    Query::FindNode(_) => "find_node",
                    Query::GetPeers(_) => "get_peers",
                    Query::Announce { .. } => "announce_peer",
                    Query::Unknown => "unknown",
                });
                if *read_only {
                    root.string("ro").integer(1);
                }
                self.encode_end(root, "q");
            }
            Body::Response(response) => {
                if let Some(asker) = response.asker {
                    root.string("ip").string(to_compact(asker));
                }
                root.string("r")
                    .dictionary(|r| encode_response(r, response));
                self.encode_end(root, "r");
            }
            Body::Error(code) => {
                root.string("e").list(|e| {
                    e.integer((*code).into());
                    e.string(match *code {
                        PROTOCOL => "Protocol Error",
                        UNKNOWN_METHOD => "Method Unknown",
                        _ => "Generic Error",
                    });
                });
                self.encode_end(root, "e");
            }
        })
    }

    fn encode_end(&self, root: &mut Encoder, kind: &str) {
        root.string("t").string(&self.transaction);
        root.string("v").string(b"VT\x00\x01");
        root.string("y").string(kind);
    }
}

fn get_in<'a>(node: &Node<'a>, key: &str) -> Option<Node<'a>> {
    node.get(key).ok().flatten()
}

fn bytes(node: Option<Node<'_>>, most: usize) -> Option<Vec<u8>> {
    let bytes = node?.as_bytes()?;
    (bytes.len() <= most).then(|| bytes.to_owned())
}

fn id(node: Option<Node<'_>>) -> Option<Id> {
    Id::from_bytes(node?.as_bytes()?)
}

fn query(method: &[u8], arguments: &Node<'_>) -> Option<Query> {
    Some(match method {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode(id(get_in(arguments, "target"))?),
        b"get_peers" => Query::GetPeers(id(get_in(arguments, "info_hash"))?),
        b"announce_peer" => {
            let number = |key| get_in(arguments, key).and_then(|n| n.as_integer());
            let implied = number("implied_port").is_some_and(|n| n != 0);
            let port = number("port").and_then(|n| u16::try_from(n).ok());
            Query::Announce {
                info_hash: id(get_in(arguments, "info_hash"))?,
                port: if implied {
                    None
                } else {
                    Some(port.filter(|p| *p != 0)?)
                },
                token: bytes(get_in(arguments, "token"), MAX_TOKEN)?,
            }
        }
        _ => Query::Unknown,
    })
}

fn response(values: &Node<'_>) -> Option<Response> {
    let compact = |key| {
        get_in(values, key)
            .and_then(|n| n.as_bytes())
            .unwrap_or_default()
    };
    let four = compact("nodes").chunks_exact(26);
    let six = compact("nodes6").chunks_exact(38);
    let contact = |chunk: &[u8]| -> Option<Contact> {
        let (id, address) = chunk.split_at_checked(20)?;
        Some(Contact {
            id: Id::from_bytes(id)?,
            address: from_compact(address)?,
        })
    };
    let nodes = four.take(MAX_NODES).chain(six.take(MAX_NODES));
    let peers = get_in(values, "values").and_then(|n| n.as_list());
    let peers = peers.into_iter().flatten().take(MAX_VALUES);
    Some(Response {
        id: id(get_in(values, "id"))?,
        nodes: nodes.filter_map(contact).collect(),
        values: peers
            .filter_map(|peer| from_compact(peer.as_bytes()?))
            .collect(),
        token: bytes(get_in(values, "token"), MAX_TOKEN),
        asker: None,
    })
}

fn encode_arguments(a: &mut Encoder, id: Id, query: &Query) {
    a.string("id").string(id.0);
    match query {
        Query::Ping | Query::Unknown => {}
        Query::FindNode(target) => {
            a.string("target").string(target.0);
        }
        Query::GetPeers(info_hash) => {
            a.string("info_hash").string(info_hash.0);
        }
        Query::Announce {
            info_hash,
            port,
            token,
        } => {
            a.string("implied_port").integer(port.is_none().into());
            a.string("info_hash").string(info_hash.0);
            a.string("port").integer(port.unwrap_or(0).into());
            a.string("token").string(token);
        }
    }
}

fn encode_response(r: &mut Encoder, response: &Response) {
    r.string("id").string(response.id.0);
    for (key, six) in [("nodes", false), ("nodes6", true)] {
        let some = response.nodes.iter().filter(|n| n.address.is_ipv6() == six);
        let compact: Vec<u8> = some
            .flat_map(|n| n.id.0.into_iter().chain(to_compact(n.address)))
            .collect();
        if !compact.is_empty() {
            r.string(key).string(compact);
        }
    }
    if let Some(token) = &response.token {
        r.string("token").string(token);
    }
    if !response.values.is_empty() {
        r.string("values").list(|list| {
            for peer in &response.values {
                list.string(to_compact(*peer));
            }
        });
    }
}

fn to_compact(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address {
        SocketAddr::V4(a) => a.ip().octets().to_vec(),
        SocketAddr::V6(a) => a.ip().octets().to_vec(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}

fn from_compact(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    if let Ok(ip) = <[u8; 4]>::try_from(ip) {
        return Some((Ipv4Addr::from(ip), port).into());
    }
    let ip: [u8; 16] = ip.try_into().ok()?;
    Some((Ipv6Addr::from(ip), port).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of BEP 5.
    #[test]
    fn the_examples_of_bep_5_are_read() {
        let read = |text: &[u8]| Message::decode(text).unwrap();
        let asker = Id(*b"abcdefghij0123456789");
        let asked = Id(*b"mnopqrstuvwxyz123456");
        let query = |query| Message {
            transaction: b"aa".to_vec(),
            body: Body::Query {
                id: asker,
                read_only: false,
                query,
            },
        };
        let ping = read(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
        assert_eq!(ping, query(Query::Ping));
        let find = read(b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe");
        assert_eq!(find, query(Query::FindNode(asked)));
        let get = read(b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe");
        assert_eq!(get, query(Query::GetPeers(asked)));
        let announce = read(
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        );
        let expected = Query::Announce {
            info_hash: asked,
            port: None,
            token: b"aoeusnth".to_vec(),
        };
        assert_eq!(announce, query(expected));
        let found = read(
            b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        );
        let mut response = Response::of(asker);
        response.token = Some(b"aoeusnth".to_vec());
        response.values = vec![
            ([b'a', b'x', b'j', b'e'], u16::from_be_bytes(*b".u")).into(),
            ([b'i', b'd', b'h', b't'], u16::from_be_bytes(*b"nm")).into(),
        ];
        assert_eq!(found.body, Body::Response(response));
        let error = read(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee");
        assert_eq!(error.body, Body::Error(201));
    }

    /// As BEP 42 has it: beside the values, not among them.
    #[test]
    fn who_asked_is_read_and_written_where_bep_42_has_it() {
        let text = b"d2:ip6:axje.u1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:v4:VT\x00\x011:y1:re";
        let read = Message::decode(text).unwrap();
        let mut response = Response::of(Id(*b"mnopqrstuvwxyz123456"));
        let port = u16::from_be_bytes(*b".u");
        response.asker = Some(([b'a', b'x', b'j', b'e'], port).into());
        assert_eq!(read.body, Body::Response(response));
        assert_eq!(read.encode(), text);
        for absurd in [
            &b"d2:ip3:axj1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re"[..],
            b"d2:ipi7e1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        ] {
            let read = Message::decode(absurd).unwrap();
            assert_eq!(
                read.body,
                Body::Response(Response::of(Id(*b"mnopqrstuvwxyz123456")))
            );
        }
    }

    #[test]
    fn a_bad_question_is_told_from_garbage() {
        for garbage in [
            &b"x"[..],
            b"de",
            b"d1:t2:aa1:y1:ze",
            b"d1:rd2:id3:abce1:t2:aa1:y1:re",
        ] {
            assert_eq!(Message::decode(garbage), Err(Refused::Garbage));
        }
        assert_eq!(Message::decode(&[b'd'; 2_000]), Err(Refused::Garbage));
        for bad in [
            &b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe"[..],
            b"d1:q4:ping1:t2:aa1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe",
        ] {
            assert_eq!(Message::decode(bad), Err(Refused::BadQuery(b"aa".to_vec())));
        }
        let unknown = Message::decode(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe");
        assert!(matches!(
            unknown.unwrap().body,
            Body::Query {
                query: Query::Unknown,
                ..
            }
        ));
    }

    fn any_id() -> impl Strategy<Value = Id> {
        any::<[u8; 20]>().prop_map(Id)
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
        ]
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let token = || proptest::collection::vec(any::<u8>(), 0..20);
        let announce = (any_id(), any::<Option<u16>>(), token());
        let announce = announce.prop_map(|(info_hash, port, token)| Query::Announce {
            info_hash,
            port: port.filter(|p| *p != 0),
            token,
        });
        let query = prop_oneof![
            Just(Query::Ping),
            any_id().prop_map(Query::FindNode),
            any_id().prop_map(Query::GetPeers),
            announce,
        ];
        let query =
            (any_id(), any::<bool>(), query).prop_map(|(id, read_only, query)| Body::Query {
                id,
                read_only,
                query,
            });
        let contact = (any_id(), any_address()).prop_map(|(id, address)| Contact { id, address });
        let nodes = proptest::collection::vec(contact, 0..8);
        let values = proptest::collection::vec(any_address(), 0..20);
        let asker = proptest::option::of(any_address());
        let response = (
            any_id(),
            nodes,
            values,
            proptest::option::of(token()),
            asker,
        );
        let response = response.prop_map(|(id, mut nodes, values, token, asker)| {
            // As they are written.
            nodes.sort_by_key(|n| n.address.is_ipv6());
            Body::Response(Response {
                id,
                nodes,
                values,
                token,
                asker,
            })
        });
        prop_oneof![query, response, any::<u16>().prop_map(Body::Error)]
    }

    proptest! {
        #[test]
        fn messages_round_trip(transaction in proptest::collection::vec(any::<u8>(), 0..8), body in any_body()) {
            let message = Message { transaction, body };
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(body in any_body(), at: proptest::sample::Index, byte: u8) {
            let message = Message { transaction: b"aa".to_vec(), body };
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
        }
    }
}
