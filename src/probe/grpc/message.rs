//! The two messages of `grpc.health.v1` in the encoding of Protocol Buffers: the request has one string, the response one
//! enumeration. Unknown fields of a response are skipped. Pure; a message of any bytes is read once, in bounded memory.

/// The key of a request's `service`: field 1, length-delimited.
const SERVICE_KEY: u8 = 0x0a;
/// The number of a response's `status`.
const STATUS_FIELD: u32 = 1;
/// Groups within groups. No known server sends even one.
const GROUPS_MAX: usize = 100;

/// `HealthCheckRequest`. The default, the empty name, is not sent.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 6);
    if !service.is_empty() {
        message.push(SERVICE_KEY);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    message
}

/// The status of a `HealthCheckResponse`, an open enumeration: 0 if it has none, the last one if it has several. `None` if
/// the bytes are not such a message.
pub(super) fn status(mut message: &[u8]) -> Option<i32> {
    let mut status = 0;
    // The numbers of the groups that are open: what is in them belongs to unknown fields.
    let mut groups: Vec<u32> = Vec::new();
    while !message.is_empty() {
        let key = u32::try_from(take_varint(&mut message)?).ok()?;
        let (field, wire_type) = (key >> 3, key & 7);
        let ours = field == STATUS_FIELD && groups.is_empty();
        match wire_type {
            _ if field == 0 => return None,
            4 => (groups.pop()? == field).then_some(())?,
            _ if groups.len() == GROUPS_MAX => return None,
            // An enumeration is sent as 64 bits with its sign; only 32 of them count.
            0 if ours => status = take_varint(&mut message)? as i32,
            _ if ours => return None,
            0 => drop(take_varint(&mut message)?),
            1 => drop(take(&mut message, 8)?),
            2 => {
                let length = take_varint(&mut message)?;
                take(&mut message, length)?;
            }
            3 => groups.push(field),
            5 => drop(take(&mut message, 4)?),
            _ => return None,
        }
    }
    groups.is_empty().then_some(status)
}

/// A number of at most 64 bits: seven in each byte, the lowest first, with the top bit set in all but the last.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'m>(bytes: &mut &'m [u8], length: u64) -> Option<&'m [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// As the library that gRPC servers use declares them.
    #[derive(Clone, PartialEq, Message)]
    struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        service: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        status: i32,
    }

    #[test]
    fn the_status_is_read_and_unknown_fields_are_skipped() {
        let deep = |groups: usize| [[0x13].repeat(groups), [0x14].repeat(groups), vec![0x08, 1]].concat();
        let cases: &[(&[u8], Option<i32>)] = &[
            (b"", Some(0)),
            (b"\x08\x01", Some(1)),
            (b"\x08\x02", Some(2)),
            (b"\x08\x01\x08\x03", Some(3)),
            (b"\x88\x00\x01", Some(1)),
            (b"\x08\x81\x80\x00", Some(1)),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Some(-1)),
            (b"\x08\x81\x80\x80\x80\x10", Some(1)),
            // Other fields: a number, 8 bytes, a text, 4 bytes, a group with a field 1 in it.
            (b"\x10\x07\x19abcdefgh\x22\x03abc\x2dabcd\x33\x08\x05\x34\x08\x01", Some(1)),
            (&deep(100), Some(1)),
            (&deep(101), None),
            (b"\x08", None),
            (b"\x08\x80", None),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", None),
            (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", None),
            (b"\x0a\x01x", None),
            (b"\x09abcdefgh", None),
            (b"\x0b\x0c", None),
            (b"\x00\x01", None),
            (b"\x0e", None),
            (b"\x17", None),
            (b"\x14", None),
            (b"\x13\x08\x01", None),
            (b"\x13\x1c", None),
            (b"\x12\x04abc", None),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            (b"\x19abcdefg", None),
            (b"\x80\x80\x80\x80\x10\x01", None),
            (b"HTTP/1.1 400 Bad Request", None),
        ];
        for (bytes, want) in cases {
            assert_eq!(status(bytes), *want, "{bytes:x?}");
            assert_eq!(HealthCheckResponse::decode(*bytes).ok().map(|read| read.status), *want, "{bytes:x?}");
        }
    }

    /// Bytes that are often fields: keys of low numbers, and small values.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let key = (0..4_u8, 0..8_u8).prop_map(|(field, wire_type)| field << 3 | wire_type);
        vec(prop_oneof![4 => key, 2 => Just(0x80), 1 => any::<u8>()], 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_bytes_are_read_as_the_library_reads_them(bytes in prop_oneof![likely(), vec(any::<u8>(), 0..40)]) {
            let read = HealthCheckResponse::decode(&*bytes).ok().map(|read| read.status);
            prop_assert_eq!(status(&bytes), read);
        }

        #[test]
        fn a_request_is_encoded_as_the_library_does(length in prop_oneof![0..4_usize, 120..140_usize, 16_380..16_390_usize]) {
            let service = "x".repeat(length);
            prop_assert_eq!(request(&service), HealthCheckRequest { service }.encode_to_vec());
        }
    }
}
