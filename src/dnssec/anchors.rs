//! Trust anchors, with which every chain of trust starts, and negative trust anchors, below which
//! nothing is validated (RFC 7646).

use crate::config::TrustAnchor;
use crate::wire::name::{Name, make_lowercase, suffixes};
use crate::wire::question::Type;

use super::verify;

/// The digest type of DS data that is made of a DNSKEY: SHA-256 (RFC 4509).
const SHA256: u8 = 2;

/// The trust anchors of a zone.
#[derive(Debug)]
struct ZoneAnchors {
    /// The zone, in lower case.
    zone: Box<[u8]>,
    /// The data of the DS records.
    ds: Vec<Box<[u8]>>,
}

/// The trust anchors and the negative trust anchors.
#[derive(Debug, Default)]
pub struct Anchors {
    /// The trust anchors of each zone.
    trusted: Vec<ZoneAnchors>,
    negative: Vec<Name>,
}

impl Anchors {
    /// Creates the collection of these anchors. A DNSKEY counts as a DS of that key.
    pub fn new(trusted: &[TrustAnchor], negative: &[Name]) -> Self {
        let mut anchors = Self {
            trusted: Vec::new(),
            negative: negative.to_vec(),
        };
        for anchor in trusted {
            let mut zone: Box<[u8]> = anchor.zone.as_bytes().into();
            make_lowercase(&mut zone);
            let Some(ds) = ds_of(anchor) else {
                continue;
            };
            let mut known = anchors.trusted.iter_mut();
            match known.find(|known| known.zone == zone) {
                Some(known) => known.ds.push(ds),
                None => anchors.trusted.push(ZoneAnchors { zone, ds: vec![ds] }),
            }
        }
        anchors
    }

    /// Returns the data of the DS records of a zone that is a trust anchor.
    pub fn of_zone(&self, zone: &[u8]) -> Option<&[Box<[u8]>]> {
        let mut trusted = self.trusted.iter();
        let found = trusted.find(|anchor| anchor.zone.eq_ignore_ascii_case(zone))?;
        Some(&found.ds)
    }

    /// Returns whether the nearest anchor at or above an uncompressed name is a trust anchor. A
    /// name without one is insecure.
    pub fn covers(&self, name: &[u8]) -> bool {
        self.nearest(name).is_some()
    }

    /// Returns the zone of the nearest anchor at or above an uncompressed name, if it is a trust
    /// anchor. The chain of trust of the name starts there: signatures and denials of the zones
    /// above it do not count.
    pub fn nearest<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let (zone, is_trusted) = self.nearest_of_both(name)?;
        is_trusted.then_some(zone)
    }

    /// Returns the length of the nearest anchor at or above an uncompressed name, positive or
    /// negative. Names at and below one name are below the same anchor if its length is the same.
    pub fn depth(&self, name: &[u8]) -> Option<usize> {
        let (zone, _) = self.nearest_of_both(name)?;
        Some(zone.len())
    }

    /// Returns the zone of the nearest anchor at or above an uncompressed name, and whether it is a
    /// trust anchor. At the same name, the negative trust anchor counts.
    fn nearest_of_both<'n>(&self, name: &'n [u8]) -> Option<(&'n [u8], bool)> {
        // The usual case: the root is the only anchor.
        if let ([only], []) = (&self.trusted[..], &self.negative[..])
            && *only.zone == [0]
        {
            return Some((&name[name.len() - 1..], true));
        }
        let is_negative = |suffix: &[u8]| {
            let mut negative = self.negative.iter();
            negative.any(|anchor| anchor.as_bytes().eq_ignore_ascii_case(suffix))
        };
        suffixes(name).find_map(|suffix| {
            if is_negative(suffix) {
                return Some((suffix, false));
            }
            self.of_zone(suffix).map(|_| (suffix, true))
        })
    }
}

/// Returns the data of the DS record for an anchor.
fn ds_of(anchor: &TrustAnchor) -> Option<Box<[u8]>> {
    if anchor.rr_type == Type::DS {
        return Some(anchor.data.clone());
    }
    let key = super::Dnskey::parse(&anchor.data).ok()?;
    let mut digested = anchor.zone.as_bytes().to_vec();
    make_lowercase(&mut digested);
    digested.extend_from_slice(&anchor.data);
    let digest = verify::digest(SHA256, &digested)?;
    let mut ds = key.tag.to_be_bytes().to_vec();
    ds.extend([key.algorithm, SHA256]);
    ds.extend_from_slice(digest.as_ref());
    Some(ds.into())
}
