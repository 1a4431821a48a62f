//! Decodes frames of a switch so that one bad message costs one message.
//!
//! Protobuf decodes a frame as a whole, and one text that is not UTF-8 fails all of it;
//! gRPC then ends the stream, and with it every other call's dialogue. Here a frame that
//! fails is taken apart (the fields of the frame as raw bytes), its messages are decoded
//! one by one, and those that fail are reported with as much of a name as can be read. The
//! frame that decodes, which is every frame of a healthy switch, pays nothing for it.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use proto::cti::v1::{CommandsRequest, DialoguesRequest, EventsRequest};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::core::Malformed;

/// Largest frame: 256 requests with a 64 KiB utterance each are refused one by one, and not
/// by ending the stream.
pub(crate) const FRAME_BYTES_MAX: usize = 20 * 1024 * 1024;

/// A frame and what of it could not be decoded.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    pub(crate) frame: T,
    pub(crate) malformed: Vec<Malformed>,
}

/// A frame that can be taken apart.
pub(crate) trait Frame: Message + Default + Send + Sync + 'static {
    /// Decodes what can be decoded.
    fn take_apart(bytes: Bytes) -> Parts<Self>;
}

#[derive(Clone, PartialEq, Message)]
struct RawDialogues {
    #[prost(uint64, tag = "1")]
    link_seq: u64,
    #[prost(bytes = "bytes", optional, tag = "2")]
    hello: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    messages: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct RawMessage {
    #[prost(bytes = "bytes", optional, tag = "1")]
    request: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    reroute: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    used: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    end: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct RawReference {
    #[prost(bytes = "bytes", tag = "1")]
    cross_ref_id: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RawList {
    #[prost(bytes = "bytes", optional, tag = "1")]
    hello: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    items: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct RawEvent {
    #[prost(uint64, tag = "1")]
    event_seq: u64,
}

fn whole(bytes: &Bytes) -> Vec<Malformed> {
    vec![Malformed {
        bytes: bytes.len(),
        ..Malformed::default()
    }]
}

fn decode_each<T: Message + Default>(
    items: Vec<Bytes>,
    name: impl Fn(&Bytes) -> Malformed,
) -> (Vec<T>, Vec<Malformed>) {
    let mut decoded = Vec::with_capacity(items.len());
    let mut malformed = Vec::new();
    for item in items {
        match T::decode(item.clone()) {
            Ok(message) => decoded.push(message),
            Err(_) => malformed.push(Malformed {
                bytes: item.len(),
                ..name(&item)
            }),
        }
    }
    (decoded, malformed)
}

fn name_message(bytes: &Bytes) -> Malformed {
    let raw = RawMessage::decode(bytes.clone()).unwrap_or_default();
    let is_request = raw.request.is_some() || raw.reroute.is_some();
    let body = raw
        .request
        .or(raw.reroute)
        .or(raw.used)
        .or(raw.end)
        .unwrap_or_default();
    let about = RawReference::decode(body)
        .map(|reference| reference.cross_ref_id)
        .unwrap_or_default();
    Malformed {
        about: String::from_utf8_lossy(&about).into_owned(),
        is_request,
        ..Malformed::default()
    }
}

impl Frame for DialoguesRequest {
    fn take_apart(bytes: Bytes) -> Parts<Self> {
        let Ok(raw) = RawDialogues::decode(bytes.clone()) else {
            return Parts {
                frame: Self::default(),
                malformed: whole(&bytes),
            };
        };
        let (messages, malformed) = decode_each(raw.messages, name_message);
        let hello = raw.hello.and_then(|hello| Message::decode(hello).ok());
        Parts {
            frame: Self {
                link_seq: raw.link_seq,
                hello,
                messages,
            },
            malformed,
        }
    }
}

impl Frame for EventsRequest {
    fn take_apart(bytes: Bytes) -> Parts<Self> {
        let Ok(raw) = RawList::decode(bytes.clone()) else {
            return Parts {
                frame: Self::default(),
                malformed: whole(&bytes),
            };
        };
        let (events, malformed) = decode_each(raw.items, |item| Malformed {
            event_seq: RawEvent::decode(item.clone()).unwrap_or_default().event_seq,
            ..Malformed::default()
        });
        Parts {
            frame: Self {
                hello: raw.hello.and_then(|hello| Message::decode(hello).ok()),
                events,
            },
            malformed,
        }
    }
}

impl Frame for CommandsRequest {
    fn take_apart(bytes: Bytes) -> Parts<Self> {
        let Ok(raw) = RawList::decode(bytes.clone()) else {
            return Parts {
                frame: Self::default(),
                malformed: whole(&bytes),
            };
        };
        let (results, malformed) = decode_each(raw.items, |_| Malformed::default());
        Parts {
            frame: Self {
                hello: raw.hello.and_then(|hello| Message::decode(hello).ok()),
                results,
            },
            malformed,
        }
    }
}

/// The codec of a stream of `Request` up and `Response` down.
#[derive(Debug)]
pub(crate) struct PartsCodec<Request, Response>(PhantomData<(Request, Response)>);

impl<Request, Response> Default for PartsCodec<Request, Response> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Request: Frame, Response: Message + Send + 'static> Codec for PartsCodec<Request, Response> {
    type Encode = Response;
    type Decode = Parts<Request>;
    type Encoder = PartsEncoder<Response>;
    type Decoder = PartsDecoder<Request>;

    fn encoder(&mut self) -> Self::Encoder {
        PartsEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        PartsDecoder(PhantomData)
    }
}

/// Encodes as protobuf.
#[derive(Debug)]
pub(crate) struct PartsEncoder<Response>(PhantomData<Response>);

impl<Response: Message> Encoder for PartsEncoder<Response> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Decodes, and takes apart what fails.
#[derive(Debug)]
pub(crate) struct PartsDecoder<Request>(PhantomData<Request>);

impl<Request: Frame> Decoder for PartsDecoder<Request> {
    type Item = Parts<Request>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Parts<Request>>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let parts = match Request::decode(bytes.clone()) {
            Ok(frame) => Parts {
                frame,
                malformed: Vec::new(),
            },
            Err(_) => Request::take_apart(bytes),
        };
        Ok(Some(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::cti::v1::{
        RouteRequest, SwitchDialogueMessage, SwitchEvent, switch_dialogue_message::Body,
    };

    fn request(cross_ref: &str, utterance: &str) -> Vec<u8> {
        let request = RouteRequest {
            cross_ref_id: cross_ref.to_owned(),
            utterance: utterance.to_owned(),
            ..RouteRequest::default()
        };
        SwitchDialogueMessage {
            body: Some(Body::Request(request)),
        }
        .encode_to_vec()
    }

    #[test]
    fn a_text_that_is_not_utf_8_costs_one_message_and_its_dialogue_has_a_name() {
        let mut bad = request("x-bad", "MARK");
        let at = bad
            .windows(4)
            .position(|window| window == b"MARK")
            .expect("there");
        bad[at] = 0xff;
        let raw = RawDialogues {
            link_seq: 9,
            hello: None,
            messages: vec![
                request("x-1", "one").into(),
                bad.into(),
                request("x-2", "two").into(),
            ],
        };
        let bytes: Bytes = raw.encode_to_vec().into();
        assert!(DialoguesRequest::decode(bytes.clone()).is_err());
        let parts = DialoguesRequest::take_apart(bytes);
        assert_eq!((parts.frame.link_seq, parts.frame.messages.len()), (9, 2));
        assert_eq!(parts.malformed.len(), 1);
        assert_eq!(
            (
                parts.malformed[0].about.as_str(),
                parts.malformed[0].is_request
            ),
            ("x-bad", true)
        );
    }

    #[test]
    fn an_event_that_fails_keeps_its_sequence_and_noise_is_one_bad_frame() {
        let good = SwitchEvent {
            event_seq: 1,
            ..SwitchEvent::default()
        }
        .encode_to_vec();
        // Sequence 2, then a call reference that is cut short.
        let bad = vec![0x08, 0x02, 0x1a, 0x05, 0x0a];
        let raw = RawList {
            hello: None,
            items: vec![good.into(), bad.into()],
        };
        let parts = EventsRequest::take_apart(raw.encode_to_vec().into());
        assert_eq!((parts.frame.events.len(), parts.malformed.len()), (1, 1));
        let noise = DialoguesRequest::take_apart(Bytes::from_static(&[0xff; 64]));
        assert_eq!(
            (noise.frame.messages.len(), noise.malformed[0].bytes),
            (0, 64)
        );
    }
}
