//! The ciphers values are sealed with, byte for byte as kube-apiserver writes them, so that either reads what the other wrote.
//!
//! Mirrors apiserver/pkg/storage/value/encrypt (aes.go: CBC with PKCS#7, GCM with the key's place as additional data; secretbox.go: NaCl's XSalsa20-Poly1305).

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::consts::U12;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use salsa20::XSalsa20;

const BLOCK: usize = 16;
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const BOX_TAG: usize = 16;
/// The first bytes of the stream are the authenticator's key.
const BOX_KEY: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    #[error("the stored data was shorter than the required size")]
    Short,
    #[error("the stored data is not a multiple of the block size")]
    Blocks,
    #[error("invalid padding on input")]
    Padding,
    #[error("cipher: message authentication failed")]
    Authentication,
    #[error("unable to read sufficient random bytes")]
    Chance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Cbc,
    Gcm,
    Secretbox,
}

impl Algorithm {
    /// What stands before a value of it.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Cbc => "k8s:enc:aescbc:v1:",
            Self::Gcm => "k8s:enc:aesgcm:v1:",
            Self::Secretbox => "k8s:enc:secretbox:v1:",
        }
    }

    pub fn field(self) -> &'static str {
        match self {
            Self::Cbc => "aescbc",
            Self::Gcm => "aesgcm",
            Self::Secretbox => "secretbox",
        }
    }

    pub fn key_sizes(self) -> &'static [usize] {
        match self {
            Self::Cbc | Self::Gcm => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], CipherError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CipherError::Chance)?;
    Ok(bytes)
}

/// `key` has one of the algorithm's sizes. `place` is where the value is stored.
pub fn seal(algorithm: Algorithm, key: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, CipherError> {
    match algorithm {
        Algorithm::Cbc => {
            let iv: [u8; BLOCK] = random()?;
            let sealed = match key.len() {
                16 => encrypt_cbc::<Aes128>(key, &iv, plain),
                24 => encrypt_cbc::<Aes192>(key, &iv, plain),
                _ => encrypt_cbc::<Aes256>(key, &iv, plain),
            }?;
            Ok([&iv[..], &sealed].concat())
        }
        Algorithm::Gcm => {
            let nonce: [u8; GCM_NONCE] = random()?;
            let payload = Payload { msg: plain, aad: place };
            let sealed = match key.len() {
                16 => gcm::<Aes128>(key, |gcm| gcm.encrypt(&nonce.into(), payload)),
                24 => gcm::<Aes192>(key, |gcm| gcm.encrypt(&nonce.into(), payload)),
                _ => gcm::<Aes256>(key, |gcm| gcm.encrypt(&nonce.into(), payload)),
            }?;
            Ok([&nonce[..], &sealed].concat())
        }
        Algorithm::Secretbox => secretbox(key, random()?, plain),
    }
}

pub fn unseal(algorithm: Algorithm, key: &[u8], place: &[u8], stored: &[u8]) -> Result<Vec<u8>, CipherError> {
    match algorithm {
        Algorithm::Cbc => {
            let (iv, sealed) = stored.split_first_chunk::<BLOCK>().ok_or(CipherError::Short)?;
            if sealed.len() % BLOCK != 0 {
                return Err(CipherError::Blocks);
            }
            match key.len() {
                16 => decrypt_cbc::<Aes128>(key, iv, sealed),
                24 => decrypt_cbc::<Aes192>(key, iv, sealed),
                _ => decrypt_cbc::<Aes256>(key, iv, sealed),
            }
        }
        Algorithm::Gcm => {
            let (nonce, sealed) = stored.split_first_chunk::<GCM_NONCE>().ok_or(CipherError::Short)?;
            let (nonce, payload) = (*nonce, Payload { msg: sealed, aad: place });
            match key.len() {
                16 => gcm::<Aes128>(key, |gcm| gcm.decrypt(&nonce.into(), payload)),
                24 => gcm::<Aes192>(key, |gcm| gcm.decrypt(&nonce.into(), payload)),
                _ => gcm::<Aes256>(key, |gcm| gcm.decrypt(&nonce.into(), payload)),
            }
        }
        Algorithm::Secretbox => open_secretbox(key, stored),
    }
}

/// A key of a size that was checked before.
fn sized<T>(made: Result<T, impl Sized>) -> Result<T, CipherError> {
    made.map_err(|_| CipherError::Short)
}

fn encrypt_cbc<C>(key: &[u8], iv: &[u8; BLOCK], plain: &[u8]) -> Result<Vec<u8>, CipherError>
where
    C: cbc::cipher::BlockCipherEncrypt,
    cbc::Encryptor<C>: KeyIvInit + BlockModeEncrypt,
{
    Ok(sized(cbc::Encryptor::<C>::new_from_slices(key, iv))?.encrypt_padded_vec::<Pkcs7>(plain))
}

fn decrypt_cbc<C>(key: &[u8], iv: &[u8; BLOCK], sealed: &[u8]) -> Result<Vec<u8>, CipherError>
where
    C: cbc::cipher::BlockCipherDecrypt,
    cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
{
    sized(cbc::Decryptor::<C>::new_from_slices(key, iv))?.decrypt_padded_vec::<Pkcs7>(sealed).map_err(|_| CipherError::Padding)
}

fn gcm<C>(key: &[u8], with: impl FnOnce(AesGcm<C, U12>) -> Result<Vec<u8>, aes_gcm::Error>) -> Result<Vec<u8>, CipherError>
where
    AesGcm<C, U12>: KeyInit,
{
    with(sized(AesGcm::<C, U12>::new_from_slice(key))?).map_err(|_| CipherError::Authentication)
}

/// Nonce, tag, then the message (`secretbox.Seal`).
fn secretbox(key: &[u8], nonce: [u8; BOX_NONCE], plain: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut stream = sized(XSalsa20::new_from_slices(key, &nonce))?;
    let mut authenticator = [0; BOX_KEY];
    stream.apply_keystream(&mut authenticator);
    let mut sealed = plain.to_vec();
    stream.apply_keystream(&mut sealed);
    let tag = Poly1305::new(&authenticator.into()).compute_unpadded(&sealed);
    Ok([&nonce[..], &tag[..], &sealed].concat())
}

fn open_secretbox(key: &[u8], stored: &[u8]) -> Result<Vec<u8>, CipherError> {
    let (nonce, rest) = stored.split_first_chunk::<BOX_NONCE>().ok_or(CipherError::Short)?;
    let (tag, sealed) = rest.split_first_chunk::<BOX_TAG>().ok_or(CipherError::Short)?;
    let mut stream = sized(XSalsa20::new_from_slices(key, nonce))?;
    let mut authenticator = [0; BOX_KEY];
    stream.apply_keystream(&mut authenticator);
    let expected = Poly1305::new(&authenticator.into()).compute_unpadded(sealed);
    // Every byte is looked at, whichever differs.
    if expected.iter().zip(tag).fold(0, |differing, (one, other)| differing | (one ^ other)) != 0 {
        return Err(CipherError::Authentication);
    }
    let mut plain = sealed.to_vec();
    stream.apply_keystream(&mut plain);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Cbc, Algorithm::Gcm, Algorithm::Secretbox];

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn what_is_sealed_comes_back_and_nothing_else_does() {
        for algorithm in ALL {
            for size in algorithm.key_sizes() {
                let key: Vec<u8> = (0..*size as u8).collect();
                for plain in [&b""[..], b"x", b"sixteen bytes ..", &[7; 1000]] {
                    let sealed = seal(algorithm, &key, b"/registry/secrets/a/b", plain).unwrap();
                    assert_eq!(unseal(algorithm, &key, b"/registry/secrets/a/b", &sealed).unwrap(), plain, "{algorithm:?} {size}");
                    assert_ne!(sealed, seal(algorithm, &key, b"/registry/secrets/a/b", plain).unwrap(), "never the same twice");
                    for end in [0, 5, sealed.len() - 1] {
                        assert!(unseal(algorithm, &key, b"/registry/secrets/a/b", &sealed[..end]).is_err(), "{algorithm:?}: a part of it");
                    }
                }
            }
        }
        let key = [1; 32];
        let sealed = seal(Algorithm::Gcm, &key, b"/here", b"x").unwrap();
        assert_eq!(unseal(Algorithm::Gcm, &key, b"/there", &sealed), Err(CipherError::Authentication), "moved to another place");
        let mut sealed = seal(Algorithm::Secretbox, &key, b"", b"xyz").unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(unseal(Algorithm::Secretbox, &key, b"", &sealed), Err(CipherError::Authentication));
    }

    #[test]
    fn the_vectors_others_keep() {
        // NaCl's own (tests/secretbox.c).
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let nonce: [u8; 24] = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().unwrap();
        let plain = hex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        );
        let sealed = secretbox(&key, nonce, &plain).unwrap();
        assert_eq!(sealed[24..56], hex("f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce"));
        // NIST SP 800-38A F.2.1, the first block; after it, a block of padding.
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let sealed = encrypt_cbc::<Aes128>(&key, &iv, &hex("6bc1bee22e409f96e93d7e117393172a")).unwrap();
        assert_eq!((sealed.len(), &sealed[..16]), (32, &hex("7649abac8119b246cee98e9b12e9197d")[..]));
        // The GCM specification's test case 2.
        let stored = [vec![0; 12], hex("0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf")].concat();
        assert_eq!(unseal(Algorithm::Gcm, &[0; 16], b"", &stored).unwrap(), [0; 16]);
    }
}
