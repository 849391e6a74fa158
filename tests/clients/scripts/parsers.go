// What net/http makes of forms; like parsers.mjs.
package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
)

type form struct {
	Type string
	Body []byte
}

func parse(asked form) []any {
	request, err := http.NewRequest("POST", "http://localhost/", bytes.NewReader(asked.Body))
	if err != nil {
		return nil
	}
	request.Header.Set("Content-Type", asked.Type)
	entries := []any{}
	if strings.HasPrefix(asked.Type, "multipart") {
		if request.ParseMultipartForm(1<<20) != nil {
			return nil
		}
		for name, files := range request.MultipartForm.File {
			for _, file := range files {
				entries = append(entries, []any{name, map[string]int64{"size": file.Size}})
			}
		}
	} else if request.ParseForm() != nil {
		return nil
	}
	for name, values := range request.PostForm {
		for _, value := range values {
			entries = append(entries, []any{name, value})
		}
	}
	return entries
}

func main() {
	var forms []form
	if err := json.NewDecoder(os.Stdin).Decode(&forms); err != nil {
		panic(err)
	}
	found := []map[string]any{}
	for _, asked := range forms {
		found = append(found, map[string]any{"net/http": parse(asked)})
	}
	json.NewEncoder(os.Stdout).Encode(found)
}
