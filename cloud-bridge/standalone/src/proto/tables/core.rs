//! The other kinds of the core group.

use super::meta::{Condition, ObjectMeta};
use super::pods::PodSpec;
use super::{Field, Message, Shape, Ty, messages};

messages! {
    AttachedVolume { 1 name = text, 2 devicePath = text }
    Binding { 1 metadata = ObjectMeta, 2 target = ObjectReference }
    ClientIPConfig { 1 timeoutSeconds ? int }
    ConfigMap {
        1 metadata = ObjectMeta, 2 data % text, 3 binaryData % bytes, 4 immutable ? bool
    }
    ConfigMapNodeConfigSource {
        1 namespace = text, 2 name = text, 3 uid = text, 4 resourceVersion = text,
        5 kubeletConfigKey = text
    }
    ContainerImage { 1 names * text, 2 sizeBytes = int }
    DaemonEndpoint { 1 Port ? int }
    EndpointAddress {
        1 ip = text, 2 targetRef ? ObjectReference, 3 hostname = text, 4 nodeName ? text
    }
    EndpointPort { 1 name ? text, 2 port ? int, 3 protocol ? text, 4 appProtocol ? text }
    EndpointSubset {
        1 addresses * EndpointAddress, 2 notReadyAddresses * EndpointAddress, 3 ports * EndpointPort
    }
    Endpoints { 1 metadata = ObjectMeta, 2 subsets * EndpointSubset }
    Event {
        1 metadata = ObjectMeta, 2 involvedObject = ObjectReference, 3 reason = text,
        4 message = text, 5 source = EventSource, 6 firstTimestamp = time, 7 lastTimestamp = time,
        8 count = int, 9 type = text, 10 eventTime = micro, 11 series ? EventSeries,
        12 action = text, 13 related ? ObjectReference, 14 reportingComponent = text,
        15 reportingInstance = text
    }
    EventSeries { 1 count = int, 2 lastObservedTime = micro }
    EventSource { 1 component = text, 2 host = text }
    LoadBalancerIngress { 1 ip = text, 2 hostname = text, 3 ipMode ? text, 4 ports * PortStatus }
    LoadBalancerStatus { 1 ingress * LoadBalancerIngress }
    LocalObjectReference { 1 name = text }
    Namespace { 1 metadata = ObjectMeta, 2 spec = NamespaceSpec, 3 status = NamespaceStatus }
    NamespaceCondition {
        1 type = text, 2 status = text, 4 lastTransitionTime = time, 5 reason = text,
        6 message = text
    }
    NamespaceSpec { 1 finalizers * text }
    NamespaceStatus { 1 phase = text, 2 conditions * NamespaceCondition }
    Node { 1 metadata = ObjectMeta, 2 spec = NodeSpec, 3 status = NodeStatus }
    NodeAddress { 1 type = text, 2 address = text }
    NodeCondition {
        1 type = text, 2 status = text, 3 lastHeartbeatTime = time, 4 lastTransitionTime = time,
        5 reason = text, 6 message = text
    }
    NodeConfigSource { 2 configMap ? ConfigMapNodeConfigSource }
    NodeConfigStatus {
        1 assigned ? NodeConfigSource, 2 active ? NodeConfigSource,
        3 lastKnownGood ? NodeConfigSource, 4 error = text
    }
    NodeDaemonEndpoints { 1 kubeletEndpoint = DaemonEndpoint }
    NodeFeatures { 1 supplementalGroupsPolicy ? bool }
    NodeRuntimeHandler { 1 name = text, 2 features ? NodeRuntimeHandlerFeatures }
    NodeRuntimeHandlerFeatures { 1 recursiveReadOnlyMounts ? bool, 2 userNamespaces ? bool }
    NodeSpec {
        1 podCIDR = text, 2 externalID = text, 3 providerID = text, 4 unschedulable = bool,
        5 taints * Taint, 6 configSource ? NodeConfigSource, 7 podCIDRs * text
    }
    NodeStatus {
        1 capacity % quantity, 2 allocatable % quantity, 3 phase = text,
        4 conditions * NodeCondition, 5 addresses * NodeAddress,
        6 daemonEndpoints = NodeDaemonEndpoints, 7 nodeInfo = NodeSystemInfo,
        8 images * ContainerImage, 9 volumesInUse * text, 10 volumesAttached * AttachedVolume,
        11 config ? NodeConfigStatus, 12 runtimeHandlers * NodeRuntimeHandler,
        13 features ? NodeFeatures
    }
    NodeSwapStatus { 1 capacity = int }
    NodeSystemInfo {
        1 machineID = text, 2 systemUUID = text, 3 bootID = text, 4 kernelVersion = text,
        5 osImage = text, 6 containerRuntimeVersion = text, 7 kubeletVersion = text,
        8 kubeProxyVersion = text, 9 operatingSystem = text, 10 architecture = text,
        11 swap ? NodeSwapStatus
    }
    ObjectReference {
        1 kind = text, 2 namespace = text, 3 name = text, 4 uid = text, 5 apiVersion = text,
        6 resourceVersion = text, 7 fieldPath = text
    }
    PodTemplateSpec { 1 metadata = ObjectMeta, 2 spec = PodSpec }
    PortStatus { 1 port ? int, 2 protocol = text, 3 error ? text }
    ResourceClaim { 1 name = text, 2 request = text }
    Secret {
        1 metadata = ObjectMeta, 2 data % bytes, 3 type = text, 4 stringData % text,
        5 immutable ? bool
    }
    Service { 1 metadata = ObjectMeta, 2 spec = ServiceSpec, 3 status = ServiceStatus }
    ServiceAccount {
        1 metadata = ObjectMeta, 2 secrets * ObjectReference,
        3 imagePullSecrets * LocalObjectReference, 4 automountServiceAccountToken ? bool
    }
    ServicePort {
        1 name = text, 2 protocol = text, 3 port ? int, 4 targetPort = int_or_text, 5 nodePort = int,
        6 appProtocol ? text
    }
    ServiceSpec {
        1 ports * ServicePort, 2 selector % text, 3 clusterIP = text, 4 type = text,
        5 externalIPs * text, 7 sessionAffinity = text, 8 loadBalancerIP = text,
        9 loadBalancerSourceRanges * text, 10 externalName = text, 11 externalTrafficPolicy = text,
        12 healthCheckNodePort = int, 13 publishNotReadyAddresses = bool,
        14 sessionAffinityConfig ? SessionAffinityConfig, 17 ipFamilyPolicy ? text,
        18 clusterIPs * text, 19 ipFamilies * text, 20 allocateLoadBalancerNodePorts ? bool,
        21 loadBalancerClass ? text, 22 internalTrafficPolicy ? text, 23 trafficDistribution = text
    }
    ServiceStatus { 1 loadBalancer = LoadBalancerStatus, 2 conditions * Condition }
    SessionAffinityConfig { 1 clientIP ? ClientIPConfig }
    Taint { 1 key = text, 2 value = text, 3 effect = text, 4 timeAdded = time }
}
