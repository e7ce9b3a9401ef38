//! Kinds of the smaller groups.

use super::core::{EventSource, ObjectReference};
use super::meta::{
    Condition, DeleteOptions, FieldSelectorRequirement, LabelSelector, LabelSelectorRequirement,
    ObjectMeta,
};
use super::{Field, Message, Shape, Ty, messages};

messages! {
    AggregationRule { 1 clusterRoleSelectors * LabelSelector }
    BoundObjectReference { 1 kind = text, 2 apiVersion = text, 3 name = text, 4 uid = text }
    ClusterRole {
        1 metadata = ObjectMeta, 2 rules * PolicyRule, 3 aggregationRule ? AggregationRule
    }
    ClusterRoleBinding { 1 metadata = ObjectMeta, 2 subjects * Subject, 3 roleRef = RoleRef }
    Endpoint {
        1 addresses * text, 2 conditions = EndpointConditions, 3 hostname ? text,
        4 targetRef ? ObjectReference, 5 deprecatedTopology % text, 6 nodeName ? text, 7 zone ? text,
        8 hints ? EndpointHints
    }
    EndpointConditions { 1 ready ? bool, 2 serving ? bool, 3 terminating ? bool }
    EndpointHints { 1 forZones * ForZone, 2 forNodes * ForNode }
    EndpointPort { 1 name ? text, 2 protocol ? text, 3 port ? int, 4 appProtocol ? text }
    EndpointSlice {
        1 metadata = ObjectMeta, 2 endpoints * Endpoint, 3 ports * EndpointPort,
        4 addressType = text
    }
    Event {
        1 metadata = ObjectMeta, 2 eventTime = micro, 3 series ? EventSeries,
        4 reportingController = text, 5 reportingInstance = text, 6 action = text, 7 reason = text,
        8 regarding = ObjectReference, 9 related ? ObjectReference, 10 note = text, 11 type = text,
        12 deprecatedSource = EventSource, 13 deprecatedFirstTimestamp = time,
        14 deprecatedLastTimestamp = time, 15 deprecatedCount = int
    }
    EventSeries { 1 count ? int, 2 lastObservedTime = micro }
    Eviction { 1 metadata = ObjectMeta, 2 deleteOptions ? DeleteOptions }
    FieldSelectorAttributes { 1 rawSelector = text, 2 requirements * FieldSelectorRequirement }
    ForNode { 1 name = text }
    ForZone { 1 name = text }
    LabelSelectorAttributes { 1 rawSelector = text, 2 requirements * LabelSelectorRequirement }
    Lease { 1 metadata = ObjectMeta, 2 spec = LeaseSpec }
    LeaseSpec {
        1 holderIdentity ? text, 2 leaseDurationSeconds ? int, 3 acquireTime = micro,
        4 renewTime = micro, 5 leaseTransitions ? int, 6 strategy ? text, 7 preferredHolder ? text
    }
    NonResourceAttributes { 1 path = text, 2 verb = text }
    NonResourceRule { 1 verbs * text, 2 nonResourceURLs * text }
    PodDisruptionBudget {
        1 metadata = ObjectMeta, 2 spec = PodDisruptionBudgetSpec,
        3 status = PodDisruptionBudgetStatus
    }
    PodDisruptionBudgetSpec {
        1 minAvailable ? int_or_text, 2 selector ? LabelSelector, 3 maxUnavailable ? int_or_text,
        4 unhealthyPodEvictionPolicy ? text
    }
    PodDisruptionBudgetStatus {
        1 observedGeneration = int, 2 disruptedPods % time, 3 disruptionsAllowed ? int,
        4 currentHealthy ? int, 5 desiredHealthy ? int, 6 expectedPods ? int,
        7 conditions * Condition
    }
    PolicyRule {
        1 verbs * text, 2 apiGroups * text, 3 resources * text, 4 resourceNames * text,
        5 nonResourceURLs * text
    }
    ResourceAttributes {
        1 namespace = text, 2 verb = text, 3 group = text, 4 version = text, 5 resource = text,
        6 subresource = text, 7 name = text, 8 fieldSelector ? FieldSelectorAttributes,
        9 labelSelector ? LabelSelectorAttributes
    }
    ResourceRule {
        1 verbs * text, 2 apiGroups * text, 3 resources * text, 4 resourceNames * text
    }
    Role { 1 metadata = ObjectMeta, 2 rules * PolicyRule }
    RoleBinding { 1 metadata = ObjectMeta, 2 subjects * Subject, 3 roleRef = RoleRef }
    RoleRef { 1 apiGroup = text, 2 kind = text, 3 name = text }
    Scale { 1 metadata = ObjectMeta, 2 spec = ScaleSpec, 3 status = ScaleStatus }
    ScaleSpec { 1 replicas = int }
    ScaleStatus { 1 replicas ? int, 2 selector = text }
    SelfSubjectAccessReview {
        1 metadata = ObjectMeta, 2 spec = SelfSubjectAccessReviewSpec,
        3 status = SubjectAccessReviewStatus
    }
    SelfSubjectAccessReviewSpec {
        1 resourceAttributes ? ResourceAttributes, 2 nonResourceAttributes ? NonResourceAttributes
    }
    SelfSubjectReview { 1 metadata = ObjectMeta, 2 status = SelfSubjectReviewStatus }
    SelfSubjectReviewStatus { 1 userInfo = UserInfo }
    SelfSubjectRulesReview {
        1 metadata = ObjectMeta, 2 spec = SelfSubjectRulesReviewSpec,
        3 status = SubjectRulesReviewStatus
    }
    SelfSubjectRulesReviewSpec { 1 namespace = text }
    Subject { 1 kind = text, 2 apiGroup = text, 3 name = text, 4 namespace = text }
    SubjectAccessReview {
        1 metadata = ObjectMeta, 2 spec = SubjectAccessReviewSpec,
        3 status = SubjectAccessReviewStatus
    }
    SubjectAccessReviewSpec {
        1 resourceAttributes ? ResourceAttributes, 2 nonResourceAttributes ? NonResourceAttributes,
        3 user = text, 4 groups * text, 5 extra % texts, 6 uid = text
    }
    SubjectAccessReviewStatus {
        1 allowed ? bool, 2 reason = text, 3 evaluationError = text, 4 denied = bool
    }
    SubjectRulesReviewStatus {
        1 resourceRules * ResourceRule, 2 nonResourceRules * NonResourceRule, 3 incomplete ? bool,
        4 evaluationError = text
    }
    TokenRequest {
        1 metadata = ObjectMeta, 2 spec = TokenRequestSpec, 3 status = TokenRequestStatus
    }
    TokenRequestSpec {
        1 audiences * text, 3 boundObjectRef ? BoundObjectReference, 4 expirationSeconds ? int
    }
    TokenRequestStatus { 1 token = text, 2 expirationTimestamp = time }
    TokenReview {
        1 metadata = ObjectMeta, 2 spec = TokenReviewSpec, 3 status = TokenReviewStatus
    }
    TokenReviewSpec { 1 token = text, 2 audiences * text }
    TokenReviewStatus {
        1 authenticated = bool, 2 user = UserInfo, 3 error = text, 4 audiences * text
    }
    UserInfo { 1 username = text, 2 uid = text, 3 groups * text, 4 extra % texts }
}
