//! The committed definitions are those of the types, and fit what Kubernetes demands of them.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use enginewright::api::{all_crds, file_name, to_yaml};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

const REFRESH: &str = "refresh with: cargo run -- crds --dir crds";

fn schema(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
    let validation = crd.spec.versions[0].schema.as_ref();
    validation
        .and_then(|validation| validation.open_api_v3_schema.as_ref())
        .expect("every version has a schema")
}

/// Calls `visit` with every part of a schema and the path to it.
fn walk(node: &JSONSchemaProps, path: &str, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    visit(path, node);
    for (name, child) in node.properties.iter().flatten() {
        walk(child, &format!("{path}.{name}"), visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &node.items {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &node.additional_properties {
        walk(values, &format!("{path}{{}}"), visit);
    }
}

fn walk_all(visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for crd in all_crds() {
        walk(schema(&crd), &crd.spec.names.kind, visit);
    }
}

#[test]
fn committed_definitions_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let mut expected = Vec::new();
    for crd in all_crds() {
        let name = file_name(&crd);
        let committed = fs::read_to_string(dir.join(&name)).unwrap_or_default();
        assert!(
            committed == to_yaml(&crd).unwrap(),
            "crds/{name} is stale; {REFRESH}"
        );
        expected.push(name);
    }
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(expected.contains(&name), "crds/{name} belongs to no type");
    }
}

#[test]
fn a_definition_reads_back_as_what_was_written() {
    for crd in all_crds() {
        let read: Value = serde_saphyr::from_str(&to_yaml(&crd).unwrap()).unwrap();
        let read: CustomResourceDefinition = serde_json::from_value(read).unwrap();
        assert_eq!(read, crd);
    }
}

#[test]
fn every_field_is_documented() {
    walk_all(&mut |path, node| {
        let generated = ["metadata", "spec", "status"]
            .map(|part| format!(".{part}"))
            .iter()
            .any(|part| path.matches('.').count() == 1 && path.ends_with(part));
        let inner = path.ends_with("[]") || path.ends_with("{}");
        let documented = node
            .description
            .as_deref()
            .is_some_and(|text| text.len() > 3);
        assert!(documented || generated || inner, "{path}");
    });
}

#[test]
fn every_text_list_and_map_is_bounded() {
    walk_all(&mut |path, node| match node.type_.as_deref() {
        Some("string") => {
            assert!(node.max_length.is_some() || node.enum_.is_some(), "{path}");
        }
        Some("array") => assert!(node.max_items.is_some(), "{path}"),
        Some("object") if node.additional_properties.is_some() => {
            assert!(node.max_properties.is_some(), "{path}");
        }
        Some("integer" | "number") if path.contains(".spec.") => {
            assert!(node.minimum.is_some() && node.maximum.is_some(), "{path}");
        }
        _ => {}
    });
}

#[test]
fn schemas_are_structural_and_hold_nothing_that_kubernetes_ignores() {
    let formats = ["int32", "int64", "double", "date-time"];
    walk_all(&mut |path, node| {
        assert!(node.type_.is_some(), "{path} has no type");
        assert_eq!(node.nullable, None, "{path}");
        let combined = [&node.one_of, &node.any_of, &node.all_of];
        assert!(combined.iter().all(|branches| branches.is_none()), "{path}");
        if let Some(format) = &node.format {
            assert!(formats.contains(&format.as_str()), "{path}: {format}");
        }
    });
}

#[test]
fn every_rule_says_what_is_allowed_and_what_to_write() {
    let mut rules = 0;
    walk_all(&mut |path, node| {
        for rule in node.x_kubernetes_validations.iter().flatten() {
            let message = rule.message.as_deref().unwrap_or_default();
            let (allowed, write) = message.split_once("; ").unwrap_or_default();
            assert!(allowed.len() > 10, "{path}: {message}");
            assert!(
                write.starts_with("write ") || write.starts_with("remove "),
                "{path}: {message}"
            );
            assert!(
                message.len() < 2048 && !message.contains('\n'),
                "{path}: {message}"
            );
            rules += 1;
        }
    });
    assert!(rules > 20, "{rules}");
}

#[test]
fn columns_and_names_are_those_that_people_type() {
    let crds = all_crds();
    let columns = |crd: &CustomResourceDefinition| -> Vec<String> {
        let columns = crd.spec.versions[0]
            .additional_printer_columns
            .iter()
            .flatten();
        columns.map(|column| column.name.clone()).collect()
    };
    assert_eq!(
        columns(&crds[0]),
        ["Backend", "Ready", "Reason", "Engine", "First-token", "Age"]
    );
    assert_eq!(crds[0].spec.names.short_names, Some(vec!["ie".to_owned()]));
    assert_eq!(crds[0].spec.scope, "Namespaced");
    assert_eq!(crds[1].spec.scope, "Cluster");
    for crd in &crds {
        assert_eq!(
            crd.spec.names.categories,
            Some(vec!["enginewright".to_owned()])
        );
        let subresources = crd.spec.versions[0].subresources.as_ref().unwrap();
        assert!(subresources.status.is_some());
    }
}

#[test]
fn columns_show_fields_that_exist() {
    for crd in all_crds() {
        let mut paths = Vec::new();
        walk(schema(&crd), "", &mut |path, _| paths.push(path.to_owned()));
        for column in crd.spec.versions[0]
            .additional_printer_columns
            .iter()
            .flatten()
        {
            let path = column.json_path.replace("[?(@.type==\"Ready\")]", "[]");
            assert!(
                paths.contains(&path) || path.starts_with(".metadata."),
                "{path}"
            );
        }
    }
}
