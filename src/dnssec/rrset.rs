//! The RRsets of a message, with their signatures.

use super::limits;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::record::Record;
use crate::wire::{Malformed, Message};

/// The number of bytes before the signer's name in the data of an RRSIG.
const RRSIG_FIXED_LEN: usize = 18;

/// Records with the same owner, class and type, and the signatures over them. The positions refer
/// to the message.
#[derive(Clone, Debug, Default)]
pub struct RrSet {
    /// The records without their signatures, in the order of the message. Empty if only signatures
    /// exist.
    pub records: Vec<Record>,
    /// The RRSIG records that cover this set.
    pub signatures: Vec<Record>,
    /// The set is in the authority section.
    pub is_authority: bool,
}

impl RrSet {
    /// Returns the record that represents the owner and class of the set.
    fn first(&self) -> Option<&Record> {
        self.records.first().or(self.signatures.first())
    }

    /// Returns the type of the records.
    pub fn rr_type(&self) -> Option<Type> {
        Some(self.records.first()?.rr_type)
    }

    /// Returns the sets of class IN of the answer and authority sections in the order of the
    /// message. Records of other classes are of no zone that is validated.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if the message has more than [`limits::RRSETS`] sets, or an RRSIG
    /// that is too short.
    pub fn of(message: &Message<'_>) -> Result<Vec<Self>, Malformed> {
        let bytes = message.bytes();
        let mut steps_left = limits::OWNER_COMPARISON_STEPS;
        let mut sets: Vec<(Type, Self)> = Vec::new();
        let answers = message.answers().map(|record| (record, false));
        let authorities = message.authorities().map(|record| (record, true));
        for (record, is_authority) in answers.chain(authorities) {
            if record.class(bytes) != Ok(CLASS_IN) {
                continue;
            }
            let is_signature = record.rr_type == Type::RRSIG;
            let rr_type = if is_signature {
                covered_type(record.data(bytes))?
            } else {
                record.rr_type
            };
            let mut is_its_set = |(set_type, set): &(Type, Self)| {
                let Some(first) = set.first() else {
                    return false;
                };
                // Only the owners and classes are compared: a signature has another type.
                let of_one_type = Record {
                    rr_type: first.rr_type,
                    ..record
                };
                *set_type == rr_type
                    && set.is_authority == is_authority
                    && first.same_rrset(&of_one_type, bytes, &mut steps_left)
            };
            let place = sets.iter().rposition(&mut is_its_set);
            let place = match place {
                Some(place) => place,
                None if sets.len() == limits::RRSETS => return Err(Malformed),
                None => {
                    let set = Self {
                        is_authority,
                        ..Self::default()
                    };
                    sets.push((rr_type, set));
                    sets.len() - 1
                }
            };
            let set = &mut sets[place].1;
            if !is_signature {
                set.records.push(record);
            } else if set.signatures.len() < limits::SIGNATURES_OF_RRSET {
                set.signatures.push(record);
            }
        }
        if steps_left == 0 {
            return Err(Malformed);
        }
        Ok(sets.into_iter().map(|(_, set)| set).collect())
    }
}

/// Returns the type that an RRSIG covers.
fn covered_type(data: &[u8]) -> Result<Type, Malformed> {
    match data {
        [high, low, ..] if data.len() > RRSIG_FIXED_LEN => {
            Ok(Type(u16::from_be_bytes([*high, *low])))
        }
        _ => Err(Malformed),
    }
}
