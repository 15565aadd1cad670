//! The interface between runtime and plugin (CNI 1.1).

use std::{net::IpAddr, str::FromStr};

use ambit_runtime::Environment;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

/// Supported CNI versions.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// CNI version of the answer if the configuration has none.
const VERSION_DEFAULT: &str = "1.1.0";
/// CNI error codes.
const CODE_VERSION: u32 = 1;
const CODE_ENVIRONMENT: u32 = 4;
const CODE_DECODE: u32 = 6;
const CODE_CONFIG: u32 = 7;
/// The runtime should retry later.
pub const CODE_TRY_LATER: u32 = 11;

/// An error result.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// CNI error code.
    pub code: u32,
    /// One-line summary.
    pub message: String,
    /// Details.
    pub details: String,
}

impl Failure {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The error as CNI JSON.
    pub fn to_json(&self, version: &str) -> String {
        let mut value = serde_json::json!({ "cniVersion": version, "code": self.code, "msg": self.message });
        if let (false, Some(object)) = (self.details.is_empty(), value.as_object_mut()) {
            object.insert("details".into(), self.details.clone().into());
        }
        value.to_string()
    }
}

/// The CNI commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniCommand {
    /// A pod starts.
    Add,
    /// A pod ended.
    Del,
    /// Is the pod's network still as created?
    Check,
    /// Could an ADD work now?
    Status,
    /// Lists the containers that still exist.
    Gc,
    /// Which versions are supported?
    Version,
}

impl FromStr for CniCommand {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            _ => return Err(Failure::new(CODE_ENVIRONMENT, format!("CNI_COMMAND {text:?} is unknown"))),
        })
    }
}

/// Our entry in the configuration, as the runtime passes it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginConfig<'a> {
    /// The agent's socket.
    pub socket: String,
    /// The state file with the enrolled namespaces.
    pub state_file: String,
    /// Pods in this namespace never wait for the agent.
    pub system_namespace: String,
    #[serde(borrow)]
    prev_result: Option<&'a RawValue>,
}

/// The pod, from the runtime's arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct PodArguments {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`, or empty if the runtime does not pass it.
    pub uid: String,
}

/// One invocation of the plugin.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// The verb.
    pub command: CniCommand,
    /// Sandbox id.
    pub container_id: String,
    /// Path of the network namespace.
    pub netns: String,
    /// Name of the interface in it.
    pub ifname: String,
    /// `None` for a container that is not a Kubernetes pod.
    pub pod: Option<PodArguments>,
    /// The configuration from standard input.
    pub config: PluginConfig<'a>,
}

impl<'a> Invocation<'a> {
    /// Parses environment and standard input.
    ///
    /// # Errors
    /// As CNI defines them.
    pub fn parse(environment: &dyn Environment, stdin: &'a str) -> Result<Self, Failure> {
        let get = |name: &str| environment.get(name).unwrap_or_default();
        let command: CniCommand = get("CNI_COMMAND").parse()?;
        let config = match serde_json::from_str(stdin) {
            Ok(config) => config,
            // A DEL must always succeed, and a VERSION may come without any input.
            Err(_) if matches!(command, CniCommand::Del | CniCommand::Version) => PluginConfig::default(),
            Err(error) => {
                return Err(Failure::new(CODE_DECODE, format!("the configuration is not JSON: {error}")));
            }
        };
        let version = version_of(stdin);
        if command == CniCommand::Add && !VERSIONS.contains(&version.as_str()) {
            return Err(Failure::new(CODE_VERSION, format!("CNI version {version} is not supported")));
        }
        if command == CniCommand::Add {
            for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
                if get(name).is_empty() {
                    return Err(Failure::new(CODE_ENVIRONMENT, format!("{name} is not set")));
                }
            }
        }
        Ok(Self {
            command,
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            pod: pod(&get("CNI_ARGS")),
            config,
        })
    }

    /// The result of the previous plugins, exactly as they wrote it.
    ///
    /// # Errors
    /// If no plugin ran before this one, which must not come first.
    pub fn previous_result(&self) -> Result<&'a str, Failure> {
        let missing = || Failure::new(CODE_CONFIG, "ambit-cni must come after another plugin: no prevResult");
        self.config.prev_result.map(RawValue::get).ok_or_else(missing)
    }
}

/// The `cniVersion` of a configuration.
pub fn version_of(stdin: &str) -> String {
    let version = serde_json::from_str::<Value>(stdin).ok();
    let version = version.as_ref().and_then(|value| value.get("cniVersion")?.as_str());
    version.unwrap_or(VERSION_DEFAULT).to_owned()
}

/// The answer to VERSION.
pub fn versions(version: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions<'a> {
        cni_version: &'a str,
        supported_versions: [&'static str; 5],
    }
    serde_json::to_string(&Versions { cni_version: version, supported_versions: VERSIONS })
        .unwrap_or_default()
}

/// The addresses in a result, in any result version.
pub fn addresses(result: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(result).unwrap_or_default();
    let ips = value.get("ips").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |ip: &Value| ip.get("address")?.as_str().map(str::to_owned);
    let bare = |text: String| text.split('/').next().unwrap_or_default().parse::<IpAddr>().ok();
    ips.iter().filter_map(text).filter_map(bare).map(|ip| ip.to_string()).collect()
}

fn pod(arguments: &str) -> Option<PodArguments> {
    let get = |name: &str| {
        arguments.split(';').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)
    };
    let text = |name: &str| get(name).map(|(_, value)| value.to_owned()).unwrap_or_default();
    let pod = PodArguments {
        namespace: text("K8S_POD_NAMESPACE"),
        name: text("K8S_POD_NAME"),
        uid: text("K8S_POD_UID"),
    };
    (!pod.namespace.is_empty() && !pod.name.is_empty()).then_some(pod)
}
