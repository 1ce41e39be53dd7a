//! Certificates for servers of tests, signed by an authority that nobody else knows.

use rcgen::{BasicConstraints, CertificateParams, Error, IsCa, Issuer, KeyPair};

/// Signs certificates. Whoever trusts [`Authority::pem`] trusts them.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// What a server shows, and the key that proves that it is its own; both in PEM.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for a host.
    pub fn certificate(&self, host: &str) -> Result<Certificate, Error> {
        let key = KeyPair::generate()?;
        let pem = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &self.issuer)?.pem();
        Ok(Certificate { pem, key: key.serialize_pem() })
    }
}
