//! Requests without any signature: which of them AWS takes.

use chaperone_model::{AccessLevel, Call};

use crate::{Catalog, HostKind, HostMatch, endpoint::Endpoint};

impl Catalog {
    /// Whether AWS takes this call without a signature, whatever it may turn out to be.
    ///
    /// There are operations that are never signed: they trade another proof for credentials (STS's
    /// `AssumeRoleWithWebIdentity`, Cognito, IAM Identity Center's OIDC). And S3 answers anybody who reads what is public.
    /// Anonymous writes are not among these: nobody needs them, and nothing of the agent's own account would bound them.
    pub fn takes_unsigned(&'static self, host: &HostMatch, call: &Call) -> bool {
        let never_signed = |service: &str, operation: &str| {
            let service = self.position(service).map(|at| self.service(usize::from(at)));
            service.and_then(|service| service.operation(operation)).is_some_and(|operation| operation.no_auth != 0)
        };
        let all = if call.candidates.is_empty() {
            never_signed(&call.service, &call.operation)
        } else {
            let named = |name: &String| name.split_once(':').is_some_and(|(service, name)| never_signed(service, name));
            call.candidates.iter().all(named)
        };
        let reads = |level| matches!(level, AccessLevel::List | AccessLevel::Read);
        let public = || host.is_s3() && !call.actions.is_empty() && call.actions.iter().all(|it| reads(it.level));
        // A registry tells whoever asks how to log in, and nothing else.
        let registry = || {
            matches!(host.kind, HostKind::Endpoint(Endpoint::Registry { .. }))
                && call.operation == "GetAuthorizationToken"
        };
        // git asks without credentials first, to be told which it is to send.
        let git = || host.kind == HostKind::Endpoint(Endpoint::CodeCommit);
        all || public() || registry() || git()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::RequestAuth;

    /// Whether it goes without a signature; `None` if it can't even be decoded.
    fn taken(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Option<bool> {
        let uri: http::Uri = url.parse().unwrap();
        let mut request = Request::builder().method(method).uri(uri.path_and_query().unwrap().as_str());
        request = request.header("host", uri.authority().unwrap().as_str());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let host = Catalog::global().host(uri.authority().unwrap().as_str()).unwrap();
        let call = Catalog::global().decode(&host, &parts, Some(body.as_bytes()), &RequestAuth::None, None).ok()?;
        Some(Catalog::global().takes_unsigned(&host, &call))
    }

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    #[test]
    fn what_is_never_signed_goes_unsigned() {
        let sts = |action: &str| {
            let body = format!(
                "Action={action}&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/r&RoleSessionName=s&WebIdentityToken=t&SAMLAssertion=a&PrincipalArn=arn:aws:iam::123456789012:saml-provider/p"
            );
            taken("POST", "https://sts.eu-west-1.amazonaws.com/", &[FORM], &body)
        };
        assert_eq!(sts("AssumeRoleWithWebIdentity"), Some(true));
        assert_eq!(sts("AssumeRoleWithSAML"), Some(true));
        for signed in ["AssumeRole", "GetCallerIdentity", "GetSessionToken", "GetFederationToken"] {
            assert_eq!(sts(signed), Some(false), "{signed}");
        }
        let json = |service: &str, target: &str| {
            let url = format!("https://{service}.eu-west-1.amazonaws.com/");
            taken("POST", &url, &[("x-amz-target", target), ("content-type", "application/x-amz-json-1.1")], "{}")
        };
        assert_eq!(json("cognito-identity", "AWSCognitoIdentityService.GetCredentialsForIdentity"), Some(true));
        assert_eq!(json("cognito-identity", "AWSCognitoIdentityService.DeleteIdentities"), Some(false));
        assert_eq!(json("cognito-idp", "AWSCognitoIdentityProviderService.InitiateAuth"), Some(true));
        assert_eq!(json("dynamodb", "DynamoDB_20120810.ListTables"), Some(false));
        let registry = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/";
        assert_eq!(taken("GET", registry, &[], ""), Some(true));
        assert_eq!(taken("GET", &format!("{registry}app/manifests/latest"), &[], ""), Some(false));
        let sso = "https://portal.sso.eu-west-1.amazonaws.com/federation/credentials?role_name=r&account_id=1";
        assert_eq!(taken("GET", sso, &[("x-amz-sso_bearer_token", "t")], ""), Some(true));
        assert_eq!(taken("POST", "https://oidc.eu-west-1.amazonaws.com/token", &[], "{}"), Some(true));
    }

    #[test]
    fn of_s3_only_reading_goes_unsigned() {
        let s3 = |method: &str, target: &str| {
            taken(method, &format!("https://b.s3.eu-west-1.amazonaws.com{target}"), &[], "")
        };
        for (method, target) in
            [("GET", "/k"), ("HEAD", "/k"), ("GET", "/?list-type=2"), ("GET", "/k?acl"), ("HEAD", "/")]
        {
            assert_eq!(s3(method, target), Some(true), "{method} {target}");
        }
        for (method, target) in [
            ("PUT", "/k"),
            ("DELETE", "/k"),
            ("PUT", "/"),
            ("POST", "/k?uploads"),
            ("PUT", "/k?partNumber=1&uploadId=u"),
        ] {
            assert_eq!(s3(method, target), Some(false), "{method} {target}");
        }
        // What AWS could take either way is what it is at worst.
        assert_ne!(s3("DELETE", "/k?uploadId="), Some(true));
    }
}
