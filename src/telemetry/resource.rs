//! The resource of traces: attributes of this process, from the environment (OpenTelemetry
//! specification, "Resource SDK" and "General SDK Configuration").

use crate::base::random::Random;
use crate::config::ResourceSettings;

/// The attributes of this process, in the order in which they are exported.
#[derive(Debug)]
pub struct Resource(Vec<(String, String)>);

impl Resource {
    /// Creates the resource. The instance has a random id (UUID version 4), unless the settings
    /// have one.
    pub fn new(settings: &ResourceSettings, random: &mut Random) -> Self {
        let mut attributes = vec![
            ("service.name".to_owned(), "dotproxy".to_owned()),
            (
                "service.version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("service.instance.id".to_owned(), uuid(random)),
        ];
        for (key, value) in &settings.attributes {
            match attributes.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => known.clone_from(value),
                None => attributes.push((key.clone(), value.clone())),
            }
        }
        Self(attributes)
    }

    /// Returns the attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&key[..], &value[..]))
    }
}

/// Returns a random UUID of version 4 (RFC 9562, section 5.4).
fn uuid(random: &mut Random) -> String {
    let seed = random.next_seed();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&seed[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let digits = format!("{number:032x}");
    [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
        let attributes = attributes.iter();
        let settings = ResourceSettings {
            attributes: attributes
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        Resource::new(&settings, &mut Random::new(&[7; 32])).0
    }

    #[test]
    fn instance_has_a_random_id_of_version_4() {
        let resource = resource(&[]);
        let (key, id) = &resource[2];
        assert_eq!(key, "service.instance.id");
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }

    #[test]
    fn attributes_of_the_environment_replace_those_of_the_program() {
        let resource = resource(&[
            ("service.name", "dns"),
            ("service.instance.id", "pod-7"),
            ("k8s.pod.name", "dns-7"),
        ]);
        let of = |wanted: &str| {
            let mut found = resource.iter().filter(|(key, _)| key == wanted);
            let (_, value) = found.next().expect("the attribute exists");
            assert!(found.next().is_none(), "{wanted} is unique");
            value.clone()
        };
        assert_eq!(of("service.name"), "dns");
        assert_eq!(of("service.instance.id"), "pod-7");
        assert_eq!(of("k8s.pod.name"), "dns-7");
        assert_eq!(of("service.version"), env!("CARGO_PKG_VERSION"));
    }
}
