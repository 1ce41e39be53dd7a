//! Signed JSON Web Tokens (RFC 7515, 7518, 7519).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};
use trib_core::{Code, Error, Result};

use super::super::env::Env;
use super::super::node::{Expr, Node};
use super::super::options::RequestOption;

pub(in super::super) struct Jwt {
    secret_key: Expr,
    base64_key: bool,
    algorithm: String,
    /// Seconds.
    lasts: i64,
    prefix: Option<Expr>,
    headers: Vec<(&'static str, Expr)>,
    more_headers: Vec<(String, Expr)>,
    claims: Vec<(&'static str, Expr)>,
    more_claims: Vec<(String, Expr)>,
    option: Option<RequestOption>,
}

impl Jwt {
    pub(super) fn build(node: &Node<'_>) -> Result<Self> {
        if node.get("passphrase").is_some() {
            return Err(node.wrong("a private key that is locked by a passphrase is not supported"));
        }
        let named = |part: &str, names: &[&'static str]| -> Result<Vec<(&'static str, Expr)>> {
            let Some(part) = node.get(part) else { return Ok(Vec::new()) };
            let found = names.iter().filter_map(|name| Some((*name, part.value.get(*name).filter(|v| !v.is_null())?)));
            found.map(|(name, value)| Ok((name, node.compile(value)?))).collect()
        };
        let free = |part: &str, reserved: &[&str]| -> Result<Vec<(String, Expr)>> {
            let Some(part) = node.get(part) else { return Ok(Vec::new()) };
            let map = part.value.as_object();
            let own = map.into_iter().flatten().filter(|(k, _)| k.as_str() != super::super::parameters::PARAMETERS);
            own.map(|(key, value)| match reserved.contains(&key.as_str()) {
                true => Err(part.wrong("the key is reserved").detail(key.clone())),
                false => Ok((key.clone(), node.compile(value)?)),
            })
            .collect()
        };
        Ok(Self {
            secret_key: node.need_expr("secret_key")?,
            base64_key: node.flag("base64_encode_secret_key"),
            algorithm: node.text("algorithm").unwrap_or("HS256").to_owned(),
            lasts: node.integer("token_duration").unwrap_or(1200),
            prefix: node.expr("header_prefix")?,
            headers: named("jwt_headers", &["kid", "typ", "cty"])?,
            more_headers: free("additional_jwt_headers", &["kid", "alg", "typ", "cty"])?,
            claims: named("jwt_payload", &["iss", "sub", "aud"])?,
            more_claims: free("additional_jwt_payload", &["iss", "sub", "aud", "iat", "exp", "nbf"])?,
            option: RequestOption::optional(node, "request_option")?,
        })
    }

    pub(super) fn option(&self) -> Option<&RequestOption> {
        self.option.as_ref()
    }

    /// A token from now on, with the prefix.
    pub(super) fn token(&self, env: &Env) -> Result<String> {
        let signed = self.signed(env)?;
        let prefix = self.prefix.as_ref().map(|p| p.text(&env.scope())).transpose()?.filter(|p| !p.is_empty());
        Ok(prefix.map_or_else(|| signed.clone(), |prefix| format!("{prefix} {signed}")))
    }

    pub(super) fn signed(&self, env: &Env) -> Result<String> {
        let scope = env.scope();
        // The reference sorts the header's keys, and leaves the claims in their order.
        let mut header = std::collections::BTreeMap::from([("typ".to_owned(), Value::from("JWT"))]);
        for (name, expr) in &self.more_headers {
            header.insert(name.clone(), expr.entry(&scope, None)?);
        }
        for (name, expr) in &self.headers {
            header.insert((*name).to_owned(), expr.eval(&scope)?);
        }
        header.insert("alg".to_owned(), Value::from(self.algorithm.clone()));
        let mut claims = Map::new();
        for (name, expr) in &self.more_claims {
            claims.insert(name.clone(), expr.entry(&scope, None)?);
        }
        for (name, expr) in &self.claims {
            claims.insert((*name).to_owned(), expr.eval(&scope)?);
        }
        let now = Utc::now().timestamp();
        for (name, time) in [("iat", now), ("exp", now + self.lasts), ("nbf", now)] {
            claims.insert(name.to_owned(), time.into());
        }
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let text = format!("{}.{}", part(serde_json::to_vec(&header)?), part(serde_json::to_vec(&claims)?));
        let mut key = self.secret_key.text(&scope)?;
        if self.base64_key {
            key = STANDARD.encode(key);
        }
        let signature = sign(&self.algorithm, &key, text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn sign(algorithm: &str, key: &str, text: &[u8]) -> Result<Vec<u8>> {
    match algorithm {
        "HS256" => mac::<Hmac<Sha256>>(key, text),
        "HS384" => mac::<Hmac<Sha384>>(key, text),
        "HS512" => mac::<Hmac<Sha512>>(key, text),
        "RS256" => rsa(&RSA_PKCS1_SHA256, key, text),
        "RS384" => rsa(&RSA_PKCS1_SHA384, key, text),
        "RS512" => rsa(&RSA_PKCS1_SHA512, key, text),
        "PS256" => rsa(&RSA_PSS_SHA256, key, text),
        "PS384" => rsa(&RSA_PSS_SHA384, key, text),
        "PS512" => rsa(&RSA_PSS_SHA512, key, text),
        "ES256" | "ES384" => {
            let kind = if algorithm == "ES256" { &ECDSA_P256_SHA256_FIXED_SIGNING } else { &ECDSA_P384_SHA384_FIXED_SIGNING };
            let PrivateKeyDer::Pkcs8(der) = private(key)? else { return Err(unusable()) };
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(kind, der.secret_pkcs8_der(), &random).map_err(|_| unusable())?;
            Ok(pair.sign(&random, text).map_err(|_| unusable())?.as_ref().to_vec())
        }
        "EdDSA" => {
            let PrivateKeyDer::Pkcs8(der) = private(key)? else { return Err(unusable()) };
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| unusable())?;
            Ok(pair.sign(text).as_ref().to_vec())
        }
        other => Err(Error::new(Code::Unsupported, "tokens cannot be signed in this way").detail(other.to_owned())),
    }
}

fn mac<M: Mac + KeyInit>(key: &str, text: &[u8]) -> Result<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).map_err(|_| unusable())?;
    mac.update(text);
    Ok(mac.finalize().into_bytes().to_vec())
}

fn rsa(padding: &'static dyn RsaEncoding, key: &str, text: &[u8]) -> Result<Vec<u8>> {
    let pair = match private(key)? {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(unusable()),
    };
    let pair = pair.map_err(|_| unusable())?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), text, &mut signature).map_err(|_| unusable())?;
    Ok(signature)
}

fn private(key: &str) -> Result<PrivateKeyDer<'static>> {
    // A key that came through an environment variable often has its line ends written out.
    PrivateKeyDer::from_pem_slice(key.replace("\\n", "\n").as_bytes()).map_err(|_| unusable())
}

/// Nothing of the key is shown.
fn unusable() -> Error {
    Error::new(Code::ConfigInvalid, "the key cannot sign tokens in the way that the manifest asks for")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, appendix A.1.
    #[test]
    fn hmac_as_in_the_standard() {
        let key = URL_SAFE_NO_PAD.decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow").unwrap();
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
        mac.update(text.as_bytes());
        assert_eq!(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn a_key_that_is_none_shows_nothing_of_itself() {
        let error = sign("RS256", "hunter2", b"x").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
