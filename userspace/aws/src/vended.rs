//! Temporary credentials that AWS gave out in an answer to an agent (STS, Cognito, IAM Identity Center, S3 Express, …):
//! the agent got a placeholder in their place, and here is what each stands for. They live in memory, as long as their
//! session does.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use chaperone_model::SessionId;
use parking_lot::{Mutex, MutexGuard};

use crate::{AwsCredentials, IssuedTokens, Placeholder, PresignedUrls};

/// So many sets of credentials a session can have been given at once, some 2 KiB each. With one more, the set goes that
/// ends first.
const MAX_ISSUED: usize = 256;

/// A placeholder and the credentials that it stands for.
pub struct VendedCredential {
    placeholder: Placeholder,
    credentials: Arc<AwsCredentials>,
}

impl VendedCredential {
    /// What the agent was given.
    pub fn placeholder(&self) -> &Placeholder {
        &self.placeholder
    }

    /// What AWS gave.
    pub fn credentials(&self) -> &Arc<AwsCredentials> {
        &self.credentials
    }
}

impl fmt::Debug for VendedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VendedCredential").field(&self.placeholder).finish()
    }
}

/// All that one session was given.
#[derive(Default)]
pub struct VendedCredentials {
    keys: Mutex<HashMap<String, Arc<VendedCredential>>>,
    tokens: IssuedTokens,
    urls: PresignedUrls,
}

impl fmt::Debug for VendedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendedCredentials").field("count", &self.lock().len()).finish()
    }
}

impl VendedCredentials {
    /// Mints a placeholder for these credentials.
    pub fn issue(&self, session: SessionId, credentials: AwsCredentials) -> Arc<VendedCredential> {
        let placeholder = Placeholder::mint(session).with_token_field(credentials.token_field());
        let id = placeholder.access_key_id().to_owned();
        let key = Arc::new(VendedCredential { placeholder, credentials: Arc::new(credentials) });
        let mut keys = self.lock();
        if keys.len() >= MAX_ISSUED {
            let now = SystemTime::now();
            keys.retain(|_, key| key.credentials.expiry().is_none_or(|expiry| expiry > now));
        }
        if keys.len() >= MAX_ISSUED {
            // Those without an end are the last to go.
            let end = |key: &VendedCredential| key.credentials.expiry().map_or((1, None), |expiry| (0, Some(expiry)));
            let first = keys.iter().min_by_key(|(_, key)| end(key)).map(|(id, _)| id.clone());
            first.map(|id| keys.remove(&id));
        }
        keys.insert(id, key.clone());
        key
    }

    /// What it was given besides keys.
    pub fn tokens(&self) -> &IssuedTokens {
        &self.tokens
    }

    /// The presigned URLs that it was given.
    pub fn urls(&self) -> &PresignedUrls {
        &self.urls
    }

    /// The one with this access key id.
    pub fn get(&self, access_key_id: &str) -> Option<Arc<VendedCredential>> {
        self.lock().get(access_key_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<VendedCredential>>> {
        self.keys.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;

    use super::*;

    fn real(expiry: Option<SystemTime>) -> AwsCredentials {
        AwsCredentials::new(Credentials::new("ASIAREAL", "very secret", Some("token".into()), expiry, "test"))
    }

    #[test]
    fn a_placeholder_stands_for_what_it_was_minted_for() {
        let keys = VendedCredentials::default();
        let session = SessionId::new();
        let key = keys.issue(session, real(None));
        let id = key.placeholder().access_key_id();
        assert_eq!(keys.get(id).unwrap().credentials().access_key_id(), "ASIAREAL");
        assert_eq!(key.placeholder().session(), session);
        assert!(keys.get("ASIAREAL").is_none(), "the real id opens nothing");
        assert!(VendedCredentials::default().get(id).is_none(), "nor does it in another session");
        let shown = format!("{key:?} {keys:?}");
        assert!(!shown.contains("secret") && !shown.contains("token") && !shown.contains("ASIAREAL"), "{shown}");
    }

    #[test]
    fn a_session_is_given_so_many_and_the_first_to_end_go() {
        let keys = VendedCredentials::default();
        let session = SessionId::new();
        let soon = SystemTime::now() + Duration::from_mins(15);
        let lasting = keys.issue(session, real(None));
        let first = keys.issue(session, real(Some(soon)));
        for i in 0..MAX_ISSUED as u64 * 2 {
            let key = keys.issue(session, real(Some(soon + Duration::from_secs(i + 1))));
            assert!(keys.get(key.placeholder().access_key_id()).is_some());
        }
        assert_eq!(keys.lock().len(), MAX_ISSUED);
        assert!(keys.get(first.placeholder().access_key_id()).is_none());
        assert!(keys.get(lasting.placeholder().access_key_id()).is_some());
    }
}
