package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// What the library says of one object: one line of JSON each, in the order read.
type verdict struct {
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	Status     string `json:"status"`
	Message    string `json:"message"`
}

// newKstatusCommand reads objects (YAML documents, JSON objects or a List) from standard input and
// prints the status that kstatus computes of each: what Flux, kpt and `helm --wait` would see.
func newKstatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "kstatus",
		Short:        "Reads objects from standard input and prints the kstatus of each as a line of JSON",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return evaluate(command.InOrStdin(), command.OutOrStdout())
		},
	}
}

func evaluate(in io.Reader, out io.Writer) error {
	decoder := yaml.NewYAMLOrJSONDecoder(in, 4096)
	encoder := json.NewEncoder(out)
	for {
		var raw runtime.RawExtension
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cannot read a document: %w", err)
		}
		if document := bytes.TrimSpace(raw.Raw); len(document) == 0 || bytes.Equal(document, []byte("null")) {
			continue
		}
		read := &unstructured.Unstructured{}
		if err := read.UnmarshalJSON(raw.Raw); err != nil {
			return fmt.Errorf("cannot read an object: %w", err)
		}
		objects := []unstructured.Unstructured{*read}
		if read.IsList() {
			list, err := read.ToList()
			if err != nil {
				return fmt.Errorf("cannot read a list: %w", err)
			}
			objects = list.Items
		}
		for i := range objects {
			if err := judge(&objects[i], encoder); err != nil {
				return err
			}
		}
	}
}

func judge(object *unstructured.Unstructured, encoder *json.Encoder) error {
	result, err := status.Compute(object)
	if err != nil {
		return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return encoder.Encode(verdict{
		Kind:       object.GetKind(),
		Namespace:  object.GetNamespace(),
		Name:       object.GetName(),
		Generation: object.GetGeneration(),
		Status:     result.Status.String(),
		Message:    result.Message,
	})
}
