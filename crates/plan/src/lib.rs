//! Every controller's decision: View -> Plan, pure
