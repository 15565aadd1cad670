//! The fields of sources, operations and conditions: which ones L4 can enforce.

use ambit_api::policy::{Condition, Operation, Source};
use ambit_model::{Match, NamespacedName};

use super::{Alternative, Findings, Translator, network, port, principal, string};

impl Translator<'_> {
    pub(super) fn source(&self, at: usize, source: &Source, found: &mut Findings) -> Alternative {
        let mut field = Fields { path: self.path(&format!("from[{at}].source")), found, given: 0 };
        let account = |text: &str| self.account(text);
        let result = Match {
            principals: field.parse("principals", &source.principals, principal),
            not_principals: field.parse("notPrincipals", &source.not_principals, principal),
            namespaces: field.parse("namespaces", &source.namespaces, string),
            not_namespaces: field.parse("notNamespaces", &source.not_namespaces, string),
            service_accounts: field.parse("serviceAccounts", &source.service_accounts, account),
            not_service_accounts: field.parse("notServiceAccounts", &source.not_service_accounts, account),
            source_ips: field.parse("ipBlocks", &source.ip_blocks, network),
            not_source_ips: field.parse("notIpBlocks", &source.not_ip_blocks, network),
            ..Match::default()
        };
        for (name, values) in [
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
            ("remoteIpBlocks", &source.remote_ip_blocks),
            ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ] {
            field.unsupported(name, values);
        }
        field.alternative(result)
    }

    pub(super) fn operation(&self, at: usize, operation: &Operation, found: &mut Findings) -> Alternative {
        let mut field = Fields { path: self.path(&format!("to[{at}].operation")), found, given: 0 };
        let result = Match {
            destination_ports: field.parse("ports", &operation.ports, port),
            not_destination_ports: field.parse("notPorts", &operation.not_ports, port),
            ..Match::default()
        };
        for (name, values) in [
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
            ("paths", &operation.paths),
            ("notPaths", &operation.not_paths),
        ] {
            field.unsupported(name, values);
        }
        field.alternative(result)
    }

    pub(super) fn condition(&self, at: usize, when: &Condition, found: &mut Findings) -> Alternative {
        let mut field = Fields { path: self.path(&format!("when[{at}]")), found, given: 0 };
        let mut result = Match::default();
        match when.key.as_str() {
            "source.ip" => {
                result.source_ips = field.parse("values", &when.values, network);
                result.not_source_ips = field.parse("notValues", &when.not_values, network);
            }
            "source.namespace" => {
                result.namespaces = field.parse("values", &when.values, string);
                result.not_namespaces = field.parse("notValues", &when.not_values, string);
            }
            "source.principal" => {
                result.principals = field.parse("values", &when.values, principal);
                result.not_principals = field.parse("notValues", &when.not_values, principal);
            }
            "destination.ip" => {
                result.destination_ips = field.parse("values", &when.values, network);
                result.not_destination_ips = field.parse("notValues", &when.not_values, network);
            }
            "destination.port" => {
                result.destination_ports = field.parse("values", &when.values, port);
                result.not_destination_ports = field.parse("notValues", &when.not_values, port);
            }
            other => {
                field.given += 1;
                field.found.unsupported.insert(format!("when {other}"));
            }
        }
        field.alternative(result)
    }

    /// `name`, of the policy's namespace, or `namespace/name`.
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
    found: &'a mut Findings,
    /// Fields that hold something.
    given: usize,
}

impl Fields<'_> {
    /// All values of a field, or none when one cannot be parsed: half a field would mean something else.
    fn parse<T>(
        &mut self,
        name: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if values.is_empty() {
            return Vec::new();
        }
        self.given += 1;
        let mut parsed = Vec::with_capacity(values.len());
        let before = self.found.invalid.len();
        for (at, value) in values.iter().enumerate() {
            match parse(value) {
                Ok(value) => parsed.push(value),
                Err(why) => self.found.invalid.push(format!("{}.{name}[{at}] {value:?}: {why}", self.path)),
            }
        }
        if self.found.invalid.len() > before { Vec::new() } else { parsed }
    }

    fn unsupported(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            self.given += 1;
            self.found.unsupported.insert(name.to_owned());
        }
    }

    fn alternative(self, result: Match) -> Alternative {
        if self.given == 0 {
            self.found.invalid.push(format!("{} is empty", self.path));
        }
        if result == Match::default() { Alternative::Anything } else { Alternative::Limits(Box::new(result)) }
    }
}
