//! The keys, and what is done with them: contact ids, callers' pseudonyms, encrypted
//! numbers.
//!
//! A caller's number enters the process in a route request, a `CallCleared`, a snapshot or
//! an accepted offer, and leaves it only as a pseudonym (HMAC-SHA256, 16 bytes) or, in a
//! booking, as ciphertext (ChaCha20-Poly1305 bound to its contact). The number itself is
//! read in this file and in `MakeCall`, nowhere else.
//!
//! Without keys (development) fixed ones are derived from public labels, so that several
//! processes of one mesh agree; with TLS on, that is refused.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use domain::{CallerId, ContactId};
use hmac::{Hmac, Mac as _};
use runtime::Secret;
use sha2::{Digest as _, Sha256};

use crate::config::Config;

type HmacSha256 = Hmac<Sha256>;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A number that cannot be decrypted: another key, another contact, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the number cannot be decrypted")]
pub(crate) struct Undecipherable;

/// A caller's number, normalised. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Number(String);

impl Number {
    /// The number as it is dialled: only for `MakeCall`.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[number]")
    }
}

struct NamedCipher {
    id: String,
    cipher: ChaCha20Poly1305,
}

/// All keys of a gateway.
pub(crate) struct Keys {
    contact: HmacSha256,
    pseudonym: HmacSha256,
    numbers: Vec<NamedCipher>,
    country_code: String,
    /// Development keys are in use.
    pub(crate) for_development: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[keys]")
    }
}

fn key(name: &str, hex: &str) -> anyhow::Result<[u8; KEY_BYTES]> {
    let digits = hex.as_bytes();
    let mut out = [0; KEY_BYTES];
    if digits.len() != 2 * KEY_BYTES {
        bail!(
            "{name}: {} characters are outside the limit: 64 hexadecimal digits",
            digits.len()
        );
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).ok();
        *byte = text
            .and_then(|text| u8::from_str_radix(text, 16).ok())
            .with_context(|| format!("{name}: not 64 hexadecimal digits"))?;
    }
    Ok(out)
}

fn named(
    name: &str,
    single: Option<&Secret>,
    several: Option<&Secret>,
) -> anyhow::Result<Vec<(String, [u8; KEY_BYTES])>> {
    let mut out = Vec::new();
    if let Some(single) = single {
        out.push((
            "0".to_owned(),
            key(&format!("{name}_key"), single.expose())?,
        ));
    }
    let list = several.map_or("", Secret::expose);
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        let (id, hex) = entry
            .split_once(':')
            .with_context(|| format!("{name}_keys: an entry is not id:hex"))?;
        if id.is_empty() || id.len() > 16 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("{name}_keys: a key id is outside the limit: 1 to 16 letters and digits");
        }
        if out.iter().any(|(known, _)| known == id) {
            bail!("{name}_keys: the key id {id} is given twice");
        }
        out.push((id.to_owned(), key(&format!("{name}_keys"), hex)?));
    }
    // The list is the rotation's; the single key, if both are given, is its oldest.
    if single.is_some() && out.len() > 1 {
        out.rotate_left(1);
    }
    Ok(out)
}

fn development(label: &str) -> [u8; KEY_BYTES] {
    Sha256::digest(format!("trunkline development key: {label}")).into()
}

fn hmac(key: &[u8; KEY_BYTES]) -> HmacSha256 {
    <HmacSha256 as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl Keys {
    /// Reads the keys of the configuration.
    ///
    /// # Errors
    /// A key is malformed, or there is none although TLS is on.
    pub(crate) fn from_config(config: &Config) -> anyhow::Result<Self> {
        let pseudonyms = named(
            "pseudonym",
            config.pseudonym_key.as_ref(),
            config.pseudonym_keys.as_ref(),
        )?;
        let numbers = named(
            "number",
            config.number_key.as_ref(),
            config.number_keys.as_ref(),
        )?;
        let for_development = pseudonyms.is_empty() || numbers.is_empty();
        if for_development && config.runtime.tls.tls_cert.is_some() {
            bail!(
                "pseudonym_key and number_key: required with TLS; without them callers' numbers are not protected"
            );
        }
        let contact = match &config.contact_key {
            Some(secret) => key("contact_key", secret.expose())?,
            // Contact ids hide nothing (switch, boot and cross reference are no secrets); the
            // key only keeps other systems from making them.
            None => development("contact"),
        };
        let numbers = if numbers.is_empty() {
            vec![("dev".to_owned(), development("number"))]
        } else {
            numbers
        };
        let pseudonym = pseudonyms
            .first()
            .map_or_else(|| development("pseudonym"), |(_, key)| *key);
        let cipher = |(id, key): (String, [u8; KEY_BYTES])| NamedCipher {
            id,
            cipher: ChaCha20Poly1305::new(&key.into()),
        };
        Ok(Self {
            contact: hmac(&contact),
            pseudonym: hmac(&pseudonym),
            numbers: numbers.into_iter().map(cipher).collect(),
            country_code: config.country_code.clone(),
            for_development,
        })
    }

    /// The contact that a first cross reference names: a UUID version 8, the same at every
    /// gateway, so that a repeated request is the same contact wherever it lands.
    pub(crate) fn contact(&self, switch: &str, boot: u64, cross_ref: &str) -> ContactId {
        let mut mac = self.contact.clone();
        mac.update(switch.as_bytes());
        mac.update(b"|");
        mac.update(&boot.to_be_bytes());
        mac.update(b"|");
        mac.update(cross_ref.as_bytes());
        let mut bytes = first_16(mac);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        ContactId(u128::from_be_bytes(bytes))
    }

    /// The number of a device, normalised; `None` when it holds no digits (withheld).
    pub(crate) fn number(&self, device: &str) -> Option<Number> {
        let user = device.split_once(':').map_or(device, |(_, rest)| rest);
        let user = user.split(['@', ';', '?']).next().unwrap_or_default();
        let digits: String = user.chars().filter(char::is_ascii_digit).collect();
        if digits.is_empty() {
            return None;
        }
        let national = digits.len() == 10 && !user.trim_start().starts_with('+');
        Some(Number(if national {
            format!("{}{digits}", self.country_code)
        } else {
            digits
        }))
    }

    /// The pseudonym of a number.
    pub(crate) fn caller(&self, number: &Number) -> CallerId {
        let mut mac = self.pseudonym.clone();
        mac.update(number.0.as_bytes());
        CallerId(u128::from_be_bytes(first_16(mac)))
    }

    /// The pseudonym of a device as the wire carries it: 16 bytes, or none.
    pub(crate) fn caller_bytes(&self, device: Option<&proto::cti::v1::Device>) -> Bytes {
        device
            .and_then(|device| self.number(&device.id))
            .map(|number| Bytes::copy_from_slice(&self.caller(&number).0.to_be_bytes()))
            .unwrap_or_default()
    }

    /// Encrypts a number for its contact: length and name of the key, nonce, ciphertext.
    pub(crate) fn encrypt(&self, number: &Number, contact: ContactId) -> Bytes {
        let current = &self.numbers[0];
        let nonce = ChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload {
            msg: number.0.as_bytes(),
            aad: &contact.to_bytes(),
        };
        let sealed = current
            .cipher
            .encrypt(&nonce, payload)
            .expect("encryption fails only beyond 256 GiB");
        let id = current.id.as_bytes();
        let mut out = Vec::with_capacity(1 + id.len() + NONCE_BYTES + sealed.len());
        out.push(u8::try_from(id.len()).expect("at most 16"));
        out.extend_from_slice(id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out.into()
    }

    /// Decrypts what [`Keys::encrypt`] made, with any key that is still listed.
    ///
    /// # Errors
    /// The key is not listed, the contact is another, or the bytes are damaged.
    pub(crate) fn decrypt(
        &self,
        sealed: &[u8],
        contact: ContactId,
    ) -> Result<Number, Undecipherable> {
        let (length, rest) = sealed.split_first().ok_or(Undecipherable)?;
        let (id, rest) = rest
            .split_at_checked(usize::from(*length))
            .ok_or(Undecipherable)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Undecipherable)?;
        let found = self
            .numbers
            .iter()
            .find(|named| named.id.as_bytes() == id)
            .ok_or(Undecipherable)?;
        let payload = Payload {
            msg: sealed,
            aad: &contact.to_bytes(),
        };
        let plain = found
            .cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| Undecipherable)?;
        String::from_utf8(plain)
            .map(Number)
            .map_err(|_| Undecipherable)
    }
}

fn first_16(mac: HmacSha256) -> [u8; 16] {
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    let mut out = [0; 16];
    out.copy_from_slice(&full[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut Config)) -> anyhow::Result<Keys> {
        let mut config = Config::for_test();
        change(&mut config);
        Keys::from_config(&config)
    }

    const A: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    #[test]
    fn one_number_in_many_spellings_has_one_pseudonym() {
        let keys = keys(|_| ()).expect("development keys");
        let of = |device: &str| keys.number(device).map(|number| keys.caller(&number));
        let expected = of("+12065551234");
        assert!(expected.is_some());
        for spelling in [
            "12065551234",
            "2065551234",
            "(206) 555-1234",
            "sip:+12065551234@gw:5060;user=phone",
            "tel:+1-206-555-1234",
        ] {
            assert_eq!(of(spelling), expected, "{spelling}");
        }
        assert_ne!(of("+12065551235"), expected);
        assert_eq!(of("anonymous"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_contact_id_is_the_same_everywhere_and_a_version_8_uuid() {
        let one = keys(|_| ()).expect("keys").contact("sw1", 7, "x");
        assert_eq!(keys(|_| ()).expect("keys").contact("sw1", 7, "x"), one);
        assert_ne!(keys(|_| ()).expect("keys").contact("sw1", 8, "x"), one);
        assert_eq!(&one.to_string()[14..15], "8");
    }

    #[test]
    fn a_number_is_decrypted_with_old_keys_for_its_own_contact_only() {
        let old =
            keys(|config| config.number_keys = Some(Secret::new(format!("a:{A}")))).expect("keys");
        let number = old.number("+12065551234").expect("number");
        let sealed = old.encrypt(&number, ContactId(1));
        assert!(!sealed.windows(10).any(|window| window == b"2065551234"));
        let rotated = keys(|config| config.number_keys = Some(Secret::new(format!("b:{B},a:{A}"))))
            .expect("keys");
        assert_eq!(
            rotated
                .decrypt(&sealed, ContactId(1))
                .expect("listed")
                .expose(),
            "12065551234"
        );
        assert_eq!(rotated.decrypt(&sealed, ContactId(2)), Err(Undecipherable));
        let gone =
            keys(|config| config.number_keys = Some(Secret::new(format!("b:{B}")))).expect("keys");
        assert_eq!(gone.decrypt(&sealed, ContactId(1)), Err(Undecipherable));
        assert_eq!(
            gone.decrypt(&sealed[..3], ContactId(1)),
            Err(Undecipherable)
        );
        assert_eq!(gone.decrypt(&[], ContactId(1)), Err(Undecipherable));
    }

    #[test]
    fn keys_are_never_printed_and_bad_ones_are_named() {
        let error =
            keys(|config| config.pseudonym_key = Some(Secret::new("abc"))).expect_err("short");
        assert!(
            error.to_string().starts_with("pseudonym_key: 3 characters"),
            "{error}"
        );
        let error = keys(|config| config.number_keys = Some(Secret::new(format!("a:{A},a:{B}"))))
            .expect_err("twice");
        assert!(error.to_string().contains("given twice"), "{error}");
        let mut config = Config::for_test();
        config.pseudonym_key = Some(Secret::new(A));
        assert!(!format!("{config:?}").contains("1111"));
        assert_eq!(
            format!("{:?}", Keys::from_config(&config).expect("keys")),
            "[keys]"
        );
    }
}
