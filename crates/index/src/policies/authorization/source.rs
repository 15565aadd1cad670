//! The fields of sources, operations and conditions: which are L4, and which need a request.

use ambit_api::policy::{Condition, Operation, Source};
use ambit_model::{
    Match, NamespacedName, RequestMatch,
    authorization::{Attribute, AttributeMatch, PathPattern},
};

use super::{
    Alternative, RuleFindings, Translator, attribute::ConditionKey, network, port, principal, string,
    trust_domain, wildcard,
};

impl Translator<'_> {
    pub(super) fn source(&self, at: usize, source: &Source, found: &mut RuleFindings) -> Alternative {
        let mut field =
            Fields { path: self.path(&format!("from[{at}].source")), found, given: 0, asks_l7: false };
        let account = |text: &str| self.account(text);
        let result = Match {
            principals: field.parse("principals", &source.principals, principal),
            not_principals: field.parse("notPrincipals", &source.not_principals, principal),
            namespaces: field.parse("namespaces", &source.namespaces, wildcard),
            not_namespaces: field.parse("notNamespaces", &source.not_namespaces, wildcard),
            trust_domains: field.parse("trustDomains", &source.trust_domains, trust_domain),
            not_trust_domains: field.parse("notTrustDomains", &source.not_trust_domains, trust_domain),
            service_accounts: field.parse("serviceAccounts", &source.service_accounts, account),
            not_service_accounts: field.parse("notServiceAccounts", &source.not_service_accounts, account),
            source_ips: field.parse("ipBlocks", &source.ip_blocks, network),
            not_source_ips: field.parse("notIpBlocks", &source.not_ip_blocks, network),
            ..Match::default()
        };
        let request = RequestMatch {
            principals: field.parse_l7("requestPrincipals", &source.request_principals, string),
            not_principals: field.parse_l7("notRequestPrincipals", &source.not_request_principals, string),
            remote_ips: field.parse_l7("remoteIpBlocks", &source.remote_ip_blocks, network),
            not_remote_ips: field.parse_l7("notRemoteIpBlocks", &source.not_remote_ip_blocks, network),
            ..RequestMatch::default()
        };
        field.alternative(result, request)
    }

    pub(super) fn operation(
        &self,
        at: usize,
        operation: &Operation,
        found: &mut RuleFindings,
    ) -> Alternative {
        let mut field =
            Fields { path: self.path(&format!("to[{at}].operation")), found, given: 0, asks_l7: false };
        let result = Match {
            destination_ports: field.parse("ports", &operation.ports, port),
            not_destination_ports: field.parse("notPorts", &operation.not_ports, port),
            ..Match::default()
        };
        let request = RequestMatch {
            hosts: field.parse_l7("hosts", &operation.hosts, string),
            not_hosts: field.parse_l7("notHosts", &operation.not_hosts, string),
            methods: field.parse_l7("methods", &operation.methods, string),
            not_methods: field.parse_l7("notMethods", &operation.not_methods, string),
            paths: field.parse_l7("paths", &operation.paths, path),
            not_paths: field.parse_l7("notPaths", &operation.not_paths, path),
            ..RequestMatch::default()
        };
        field.alternative(result, request)
    }

    pub(super) fn condition(&self, at: usize, when: &Condition, found: &mut RuleFindings) -> Alternative {
        let mut field = Fields { path: self.path(&format!("when[{at}]")), found, given: 0, asks_l7: false };
        let (values, not_values) = (&when.values, &when.not_values);
        let (mut result, mut request) = (Match::default(), RequestMatch::default());
        match ConditionKey::parse(&when.key) {
            Ok(ConditionKey::SourceIp) => {
                result.source_ips = field.parse("values", values, network);
                result.not_source_ips = field.parse("notValues", not_values, network);
            }
            Ok(ConditionKey::SourceNamespace) => {
                result.namespaces = field.parse("values", values, wildcard);
                result.not_namespaces = field.parse("notValues", not_values, wildcard);
            }
            Ok(ConditionKey::SourceTrustDomain) => {
                result.trust_domains = field.parse("values", values, trust_domain);
                result.not_trust_domains = field.parse("notValues", not_values, trust_domain);
            }
            Ok(ConditionKey::SourceServiceAccount) => {
                result.service_accounts = field.parse("values", values, |text| self.account(text));
                result.not_service_accounts = field.parse("notValues", not_values, |text| self.account(text));
            }
            Ok(ConditionKey::SourcePrincipal) => {
                result.principals = field.parse("values", values, principal);
                result.not_principals = field.parse("notValues", not_values, principal);
            }
            Ok(ConditionKey::DestinationIp) => {
                result.destination_ips = field.parse("values", values, network);
                result.not_destination_ips = field.parse("notValues", not_values, network);
            }
            Ok(ConditionKey::DestinationPort) => {
                result.destination_ports = field.parse("values", values, port);
                result.not_destination_ports = field.parse("notValues", not_values, port);
            }
            Ok(l7) => {
                field.when_l7(when);
                self.request_condition(l7, when, &mut field, &mut request);
            }
            Err(why) => {
                field.given += 1;
                let text = format!("{}.key {:?}: {why}", field.path, when.key);
                field.found.unknown.push(text);
            }
        }
        field.alternative(result, request)
    }

    fn request_condition(
        &self,
        key: ConditionKey,
        when: &Condition,
        field: &mut Fields<'_>,
        request: &mut RequestMatch,
    ) {
        let (values, not_values) = (&when.values, &when.not_values);
        match key {
            ConditionKey::RemoteIp => {
                request.remote_ips = field.values_l7("values", values, network);
                request.not_remote_ips = field.values_l7("notValues", not_values, network);
            }
            ConditionKey::RequestPrincipal => {
                request.principals = field.values_l7("values", values, string);
                request.not_principals = field.values_l7("notValues", not_values, string);
            }
            ConditionKey::Attribute(attribute) => request.attributes.push(AttributeMatch {
                attribute,
                values: field.values_l7("values", values, string),
                not_values: field.values_l7("notValues", not_values, string),
            }),
            ConditionKey::SourceIp
            | ConditionKey::SourceNamespace
            | ConditionKey::SourcePrincipal
            | ConditionKey::SourceServiceAccount
            | ConditionKey::SourceTrustDomain
            | ConditionKey::DestinationIp
            | ConditionKey::DestinationPort => {}
        }
    }

    /// Parses `name`, in the policy's namespace, or `namespace/name`.
    fn account(&self, text: &str) -> Result<NamespacedName, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (namespace.into(), name),
            None => (self.namespace.clone(), text),
        };
        if namespace.is_empty() || name.is_empty() || name.contains(['/', '*']) || namespace.contains('*') {
            return Err("it is neither <service account> nor <namespace>/<service account>".into());
        }
        Ok(NamespacedName { namespace, name: name.into() })
    }
}

/// The fields of one alternative.
struct Fields<'a> {
    path: String,
    found: &'a mut RuleFindings,
    /// Number of fields that are set.
    given: usize,
    /// Whether one of them is an L7 field.
    asks_l7: bool,
}

impl Fields<'_> {
    fn parse<T>(
        &mut self,
        name: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.given += usize::from(!values.is_empty());
        all(&self.path, name, values, parse, &mut self.found.invalid)
    }

    /// An L7 field.
    fn parse_l7<T>(
        &mut self,
        name: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if !values.is_empty() {
            self.given += 1;
            self.asks_l7 = true;
            self.found.l7.insert(name.to_owned());
        }
        self.values_l7(name, values, parse)
    }

    fn values_l7<T>(
        &mut self,
        name: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        all(&self.path, name, values, parse, &mut self.found.invalid_l7)
    }

    /// An L7 condition.
    fn when_l7(&mut self, when: &Condition) {
        self.given += 1;
        self.asks_l7 = true;
        self.found.l7.insert(format!("when {}", when.key));
        if when.values.is_empty() && when.not_values.is_empty() {
            self.found.invalid_l7.push(format!("{} has neither values nor notValues", self.path));
        }
    }

    fn alternative(self, result: Match, request: RequestMatch) -> Alternative {
        if self.given == 0 {
            self.found.invalid.push(format!("{} is empty", self.path));
        }
        let mut request = request;
        if self.asks_l7 && request.is_empty() {
            // A waypoint rejects an invalid value; for a node it counts as L7 like a valid one.
            let (attribute, values) = (Attribute::Authority, Vec::new());
            request.attributes.push(AttributeMatch { attribute, not_values: values.clone(), values });
        }
        let request = (!request.is_empty()).then(|| Box::new(request));
        let result = Match { request, ..result };
        if result == Match::default() { Alternative::Anything } else { Alternative::Limits(Box::new(result)) }
    }
}

/// All values of a field; `None` if any is invalid, because the rest would have another meaning.
fn all<T>(
    path: &str,
    name: &str,
    values: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
    invalid: &mut Vec<String>,
) -> Vec<T> {
    let mut parsed = Vec::with_capacity(values.len());
    let before = invalid.len();
    for (at, value) in values.iter().enumerate() {
        match parse(value) {
            Ok(value) => parsed.push(value),
            Err(why) => invalid.push(format!("{path}.{name}[{at}] {value:?}: {why}")),
        }
    }
    if invalid.len() > before { Vec::new() } else { parsed }
}

fn path(text: &str) -> Result<PathPattern, String> {
    text.parse().map_err(|why: ambit_model::authorization::InvalidPathPattern| why.to_string())
}
